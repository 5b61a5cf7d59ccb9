// Operation.

import { h } from "../parts/dom.js";

/** @typedef {import("../parts/view.js").Address} Address */

/** @param {Address} address @returns {import("../parts/view.js").View} */
export function operationView(address) {
  const element = h("div", { class: "view" }, h("h1", null, "Operation"), h("p", null, address.names.join("/")));
  return { element, title: "Operation", close() {} };
}
