// Text, as it is.

import { h, say } from "./dom.js";

export function markdownView() {
  const element = h("div", { class: "pre-line" });
  return { element, update: (/** @type {string} */ text) => say(element, text) };
}
