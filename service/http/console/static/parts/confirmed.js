// A button that is pressed twice before anything is done: the first press asks, and leaving it takes that back.

import { button, say } from "./dom.js";

/**
 * @param {string} text
 * @param {string} question
 * @param {(pressed: HTMLButtonElement) => void} act
 * @param {import("./dom.js").Attributes} [attributes]
 */
export function confirmed(text, question, act, attributes = {}) {
  let isAsked = false;
  /** @param {boolean} asked */
  function ask(asked) {
    isAsked = asked;
    say(pressed, asked ? question : text);
  }
  const pressed = button(
    text,
    (event) => {
      if (event.detail > 1) return; // who clicks twice at once has not read the question
      ask(!isAsked);
      if (!isAsked) act(pressed);
    },
    {
      onblur: () => ask(false),
      onkeydown: (/** @type {KeyboardEvent} */ event) => event.key === "Escape" && ask(false),
    },
  );
  for (const [name, value] of Object.entries(attributes)) pressed.setAttribute(name, value);
  return pressed;
}
