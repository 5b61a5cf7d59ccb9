// Log.

import { h } from "../parts/dom.js";

/** @typedef {import("../parts/view.js").Address} Address */

/** @param {Address} address @returns {import("../parts/view.js").View} */
export function logView(address) {
  const element = h("div", { class: "view" }, h("h1", null, "Log"), h("p", null, address.names.join("/")));
  return { element, title: "Log", close() {} };
}
