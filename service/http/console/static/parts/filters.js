// What a list is narrowed down by. It stands in the address, so that a link says it and a reload keeps it; going back
// leaves the list instead of taking back one filter after the other.

import { now } from "../service/api.js";
import { h } from "./dom.js";

/**
 * @typedef {object} Field
 * @property {string} name
 * @property {string} label
 * @property {[string, string][]} [choices] without them it is a text
 * @property {string} [hint] what that is
 */

/** How old something is at least, in seconds. @type {Field} */
export const AGE = {
  name: "age",
  label: "Older than",
  choices: [
    ["", "any age"],
    ["60", "1 min"],
    ["300", "5 min"],
    ["3600", "1 h"],
    ["86400", "1 day"],
  ],
};

/**
 * @param {string} where the view, such as `#/tasks`
 * @param {Field[]} fields
 * @param {URLSearchParams} query
 * @param {() => void} changed
 */
export function filters(where, fields, query, changed) {
  const inputs = new Map(fields.map((field) => [field.name, inputOf(field)]));

  /** Take what an address says. @param {URLSearchParams} said */
  function go(said) {
    for (const [name, input] of inputs) input.value = said.get(name) ?? "";
    for (const input of inputs.values()) if (input.selectedIndex === -1) input.value = "";
  }

  /** @returns {Record<string, string>} */
  function values() {
    return Object.fromEntries([...inputs].map(([name, input]) => [name, input.value.trim()]));
  }

  function tell() {
    const set = Object.entries(values()).filter(([, value]) => value);
    const said = new URLSearchParams(set).toString();
    history.replaceState(null, "", said ? `${where}?${said}` : where);
    changed();
  }

  go(query);
  const element = h(
    "form",
    { class: "filters", role: "search", "aria-label": "Filters", onchange: tell, onsubmit: stay },
    fields.map(({ name, label }) => h("label", null, label, inputs.get(name))),
  );
  return { element, values, go };
}

/** @param {Field} field @returns {any} an input or a select */
function inputOf({ name, choices, hint }) {
  if (!choices) return h("input", { name, autocomplete: "off", spellcheck: "false", placeholder: hint });
  return h(
    "select",
    { name },
    choices.map(([value, text]) => h("option", { value }, text)),
  );
}

/** @param {Event} event */
function stay(event) {
  event.preventDefault();
}

/**
 * A field for an id, as it came with a complaint.
 * @param {string} label
 * @param {string} where the view that shows one
 */
export function finder(label, where) {
  const id = h("input", { autocomplete: "off", spellcheck: "false", required: true, class: "mono" });
  /** @param {Event} event */
  function submitted(event) {
    event.preventDefault();
    location.hash = `${where}/${encodeURIComponent(id.value.trim())}`;
  }
  return h(
    "form",
    { class: "row bottom", onsubmit: submitted },
    h("label", null, label, id),
    h("button", null, "Open"),
  );
}

/**
 * Those that are so old, as `AGE` says it.
 * @template {{created_at: string}} Row
 * @param {Row[]} rows
 * @param {string} seconds
 */
export function olderThan(rows, seconds) {
  const latest = now() - Number(seconds) * 1000;
  return seconds ? rows.filter((row) => Date.parse(row.created_at) <= latest) : rows;
}
