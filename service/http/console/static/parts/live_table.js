// A table that is told anew in its place: a row is known by its key and stays the same element, so that whoever has it
// in focus, or reads it, goes on with it. On a narrow screen each row is a card (see lists.css), which takes the roles
// of a table from its elements: they are said.

import { h, say } from "./dom.js";
import { shortId } from "./format.js";
import { putInOrder } from "./order.js";

/**
 * What a cell shows of a row.
 * @template Row
 * @typedef {{element: HTMLElement, show(row: Row): void}} Cell
 */
/**
 * @template Row
 * @typedef {{title: string, cell: () => Cell<Row>}} Column
 */
/**
 * @template Row
 * @typedef {{element: HTMLElement, show(rows: Row[]): void}} LiveTable
 */

/**
 * @template Row
 * @param {{label: string, columns: Column<Row>[], key: (row: Row) => string, empty: string}} what
 * @returns {LiveTable<Row>}
 */
export function liveTable({ label, columns, key, empty }) {
  const body = h("tbody", { role: "rowgroup" });
  const nothing = h("p", { class: "empty" }, empty);
  const heads = columns.map(({ title }) => h("th", { role: "columnheader", scope: "col" }, title));
  const head = h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, heads));
  const table = h("table", { role: "table", "aria-label": label }, head, body);
  const wrapper = h("div", { class: "table-wrapper", tabindex: 0, role: "region", "aria-label": label }, table);
  const element = h("div", { class: "live-table" }, wrapper, nothing);
  /** @type {Map<string, {line: HTMLTableRowElement, cells: Cell<Row>[]}>} */
  const made = new Map();

  /** @param {Row} row */
  function lineOf(row) {
    const known = made.get(key(row));
    if (known) return known;
    const cells = columns.map((column) => column.cell());
    const line = h(
      "tr",
      { role: "row" },
      cells.map((cell, place) => h("td", { role: "cell", "data-title": columns[place].title }, cell.element)),
    );
    const fresh = { line, cells };
    made.set(key(row), fresh);
    return fresh;
  }

  /** @param {Row[]} rows */
  function show(rows) {
    const kept = new Set(rows.map(key));
    for (const [name, { line }] of made) {
      if (kept.has(name)) continue;
      line.remove();
      made.delete(name);
    }
    const lines = rows.map(lineOf);
    lines.forEach(({ cells }, place) => cells.forEach((cell) => cell.show(rows[place])));
    putInOrder(
      body,
      lines.map(({ line }) => line),
    );
    wrapper.hidden = rows.length === 0;
    nothing.hidden = rows.length > 0;
  }

  return { element, show };
}

/**
 * @template Row
 * @param {string} title
 * @param {(row: Row) => string} text
 * @param {import("./dom.js").Attributes} [attributes]
 * @returns {Column<Row>}
 */
export function textColumn(title, text, attributes = {}) {
  return column(
    title,
    () => h("span", attributes),
    (element, row) => say(element, text(row)),
  );
}

/**
 * A column of what is made once a row and told anew.
 * @template Row
 * @template {HTMLElement} Made
 * @param {string} title
 * @param {() => Made} make
 * @param {(element: Made, row: Row) => void} show
 * @returns {Column<Row>}
 */
export function column(title, make, show) {
  return {
    title,
    cell() {
      const element = make();
      return { element, show: (row) => show(element, row) };
    },
  };
}

/**
 * A column of ids that lead somewhere; the end of each is shown, all of it is told.
 * @template Row
 * @param {string} title
 * @param {string} where the view, such as `#/tasks`
 * @param {(row: Row) => string} id
 * @returns {Column<Row>}
 */
export function idColumn(title, where, id) {
  return column(
    title,
    () => h("a", { class: "mono" }),
    (element, row) => {
      const whole = id(row);
      say(element, shortId(whole));
      element.href = `${where}/${encodeURIComponent(whole)}`;
      element.title = whole;
    },
  );
}

/**
 * @template Row
 * @param {(row: Row) => string} status
 * @returns {Column<Row>}
 */
export function statusColumn(status) {
  return column(
    "Status",
    () => h("span", { class: "badge" }),
    (element, row) => {
      say(element, status(row));
      element.dataset.status = status(row);
    },
  );
}
