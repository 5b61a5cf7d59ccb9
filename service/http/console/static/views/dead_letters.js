// Dead letters.

import { h } from "../parts/dom.js";

/** @typedef {import("../main.js").Address} Address */

/** @param {Address} address @returns {import("../main.js").View} */
export function deadLettersView(address) {
  const element = h("div", { "class": "view" }, h("h1", null, "Dead letters"), h("p", null, address.names.join("/")));
  return { element, title: "Dead letters", close() {} };
}
