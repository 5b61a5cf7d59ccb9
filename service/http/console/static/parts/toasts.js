// Short notices at the edge of the page: what went wrong with something that was asked for, or that it is done.

import { button, h } from "./dom.js";

const SHOWN_MILLISECONDS = 8000;

/** @param {string} text @param {"problem" | "done"} [kind] */
export function toast(text, kind = "problem") {
  const shown = h("div", { class: "toast", "data-kind": kind }, h("span", null, text));
  shown.append(button("×", () => shown.remove(), { class: "quiet", "aria-label": "Close this notice" }));
  const all = /** @type {HTMLElement} */ (document.getElementById("toasts"));
  all.append(shown);
  while (all.children.length > 4) all.firstElementChild?.remove();
  if (kind === "done") setTimeout(() => shown.remove(), SHOWN_MILLISECONDS);
}

/**
 * Do this with the button out of use meanwhile; say so where it fails.
 * @param {HTMLButtonElement} pressed
 * @param {() => Promise<unknown>} act
 */
export async function doing(pressed, act) {
  const isHeld = document.activeElement === pressed;
  pressed.disabled = true;
  try {
    await act();
  } catch (error) {
    toast(/** @type {Error} */ (error).message);
  } finally {
    pressed.disabled = false;
    if (isHeld && document.activeElement === document.body) pressed.focus(); // who was disabled had lost it
  }
}
