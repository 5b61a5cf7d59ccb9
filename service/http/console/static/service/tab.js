// What this tab keeps over a reload. What it has no room for is not kept: it is gone with the page, and nothing else is
// the worse for it.

export const tab = {
  /** @param {string} name @returns {string | null} */
  kept: (name) => sessionStorage.getItem(name),

  /** In the place of what was kept there. @param {string} name @param {string} text */
  keep(name, text) {
    try {
      sessionStorage.setItem(name, text);
    } catch {
      sessionStorage.removeItem(name);
    }
  },

  /** @param {string} name */
  forget: (name) => sessionStorage.removeItem(name),
};
