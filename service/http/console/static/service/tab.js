// What this tab keeps over a reload, and what this browser keeps beyond it. Where there is no room, or nothing may be
// kept, it is kept until the page is left: whoever keeps something need not know.

export const tab = keeper(() => sessionStorage);
export const browser = keeper(() => localStorage);

/** @param {() => Storage} storage asked for each time: to ask may be refused */
function keeper(storage) {
  const unkept = /** @type {Map<string, string>} */ (new Map());

  /** @template Result @param {(there: Storage) => Result} act @returns {Result | null} */
  function attempt(act) {
    try {
      return act(storage());
    } catch {
      return null;
    }
  }

  return {
    /** @param {string} name @returns {string | null} */
    kept: (name) => unkept.get(name) ?? attempt((there) => there.getItem(name)),

    /** In the place of what was kept there. @param {string} name @param {string} text */
    keep(name, text) {
      unkept.set(name, text);
      attempt((there) => {
        there.removeItem(name); // it would come back where this finds no room
        there.setItem(name, text);
        unkept.delete(name);
      });
    },

    /** @param {string} name */
    forget(name) {
      unkept.delete(name);
      attempt((there) => there.removeItem(name));
    },

    forgetAll() {
      unkept.clear();
      attempt((there) => there.clear());
    },
  };
}
