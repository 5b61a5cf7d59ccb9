// What is asked for by a control, in its own place: while the service is asked nothing else can be pressed there, what
// is wrong stands beside it, and who uses the keyboard stays where they were.

import { h, say } from "./dom.js";

/**
 * @typedef {object} Asked
 * @property {HTMLFieldSetElement} controls
 * @property {HTMLElement} problem
 * @property {(act: () => Promise<unknown>) => Promise<boolean>} ask
 */

/** @param {string} label what the controls are for @returns {Asked} */
export function asked(label) {
  const problem = h("p", { class: "problem", role: "alert" });
  const controls = h("fieldset", { class: "controls", "aria-label": label });

  /** @param {() => Promise<unknown>} act @returns {Promise<boolean>} whether it went well */
  async function ask(act) {
    const held = /** @type {HTMLElement | null} */ (document.activeElement);
    const isHeldHere = controls.contains(held);
    controls.disabled = true;
    say(problem, "");
    try {
      await act();
      return true;
    } catch (error) {
      say(problem, /** @type {Error} */ (error).message);
      return false;
    } finally {
      controls.disabled = false;
      if (isHeldHere && document.activeElement === document.body) comeBack(held, controls);
    }
  }

  return { controls, problem, ask };
}

/** @param {HTMLElement | null} held @param {HTMLElement} controls */
function comeBack(held, controls) {
  if (held?.checkVisibility()) held.focus();
  else /** @type {HTMLElement | null} */ (controls.closest("[tabindex]"))?.focus();
}
