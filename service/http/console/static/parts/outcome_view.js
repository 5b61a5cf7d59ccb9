// How an operation ended, in words and values.

import { h } from "./dom.js";
import { jsonText, reveal } from "./format.js";

/**
 * @param {string} status
 * @param {Record<string, any> | null | undefined} outcome null: it is too large to be shown, or gone
 * @returns {HTMLElement}
 */
export function outcomeView(status, outcome) {
  if (!outcome) return h("span", { class: "quiet-text" }, "not shown");
  if (status === "succeeded") return value("Result", outcome.result);
  if (status === "cancelled")
    return h("p", null, outcome.reason ? `Reason: ${reveal(outcome.reason)}` : "No reason given.");
  return h(
    "div",
    { class: "stack tight" },
    h(
      "p",
      { class: "problem" },
      h("code", null, reveal(String(outcome.error_type))),
      ` ${reveal(String(outcome.message))}`,
    ),
    outcome.details === undefined ? null : value("Details", outcome.details),
  );
}

/** A value, in a box that scrolls. @param {string} label @param {unknown} shown @returns {HTMLElement} */
export function value(label, shown) {
  return h("pre", { class: "value", tabindex: 0, role: "group", "aria-label": label }, jsonText(shown));
}
