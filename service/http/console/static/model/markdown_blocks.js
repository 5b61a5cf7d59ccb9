// Lines of Markdown into a tree of blocks. Each level of nesting reads its lines once and hands on what is inside, so
// the time is linear in the text; what is nested deeper than `DEEPEST` is text as it is written.

import { goesOn, opened } from "./markdown_extent.js";
import { inline } from "./markdown_inline.js";
import {
  cellsOf,
  closesFence,
  dedent,
  headingOf,
  indentOf,
  isBlank,
  itemOf,
  taskOf,
  unquoted,
} from "./markdown_lines.js";

/**
 * @import {Block, Item} from "./markdown_tree.js"
 * @import {Open, OpenFence, OpenList, OpenTable} from "./markdown_extent.js"
 */

/**
 * @param {readonly string[]} lines
 * @param {number} depth
 * @returns {readonly Block[]}
 */
function blocksOf(lines, depth) {
  const blocks = [];
  let at = 0;
  while (at < lines.length) {
    if (isBlank(lines[at])) {
      at++;
      continue;
    }
    const first = at;
    const open = opened(lines[at], lines[at + 1] ?? "", depth);
    at++;
    const before = { ...open };
    while (at < lines.length && goesOn(open, lines[at], lines[at + 1] ?? "")) at++;
    blocks.push(blockOf(before, lines.slice(first, at), { depth, begun: true, inLine: false }));
  }
  return Object.freeze(blocks);
}

/**
 * The one block that these lines are. If it has not begun with them, `open` is as before the first of them, of which
 * the beginning may be missing, too.
 * @param {Open} open
 * @param {readonly string[]} lines
 * @param {{depth: number, begun: boolean, inLine: boolean}} where
 * @returns {Block}
 */
export function blockOf(open, lines, { depth, begun, inLine }) {
  switch (open.kind) {
    case "fence":
      return fence(open, begun ? lines.slice(1) : lines, inLine);
    case "list":
      return list({ ...open }, lines, { depth, begun });
    case "table":
      return table(open, lines, begun);
    case "quote":
      return Object.freeze({ type: "quote", blocks: blocksOf(lines.map(unquoted), depth + 1) });
    case "rule":
      return Object.freeze({ type: "rule" });
    case "heading":
      return heading(lines);
    default:
      return paragraph(lines.join("\n"));
  }
}

/** @param {string} text @returns {Block} */
export function paragraph(text) {
  return Object.freeze({ type: "paragraph", children: inline(text) });
}

/** @param {readonly string[]} lines @returns {Block} */
function heading(lines) {
  const found = headingOf(lines[0]);
  if (!found) return paragraph(lines.join("\n"));
  return Object.freeze({ type: "heading", level: found.level, children: inline(found.text) });
}

/** @param {OpenFence} open @param {readonly string[]} lines @param {boolean} inLine @returns {Block} */
function fence(open, lines, inLine) {
  const closed = lines.length > Number(inLine) && closesFence(lines[lines.length - 1], open.mark);
  const inside = closed ? lines.slice(0, -1) : lines;
  const text = inside.map((line, number) => withoutReturn(inLine && number === 0 ? line : dedent(line, open.indent)));
  return Object.freeze({ type: "fence", language: open.language, text: text.join("\n") });
}

/** @param {string} line @returns {string} */
function withoutReturn(line) {
  return line.endsWith("\r") ? line.slice(0, -1) : line;
}

/** @param {OpenTable} open @param {readonly string[]} lines @param {boolean} begun @returns {Block} */
function table(open, lines, begun) {
  const header = begun ? rowOf(lines[0]) : null;
  const rows = Object.freeze(lines.slice(begun ? 2 : Number(open.border)).map(rowOf));
  return Object.freeze({ type: "table", aligns: open.aligns, header, rows });
}

/** @param {string} line */
function rowOf(line) {
  return Object.freeze(cellsOf(line).map((cell) => inline(cell)));
}

/**
 * @param {OpenList} open
 * @param {readonly string[]} lines
 * @param {{depth: number, begun: boolean}} where
 * @returns {Block}
 */
function list(open, lines, { depth, begun }) {
  const { ordered } = open;
  const first = begun ? (itemOf(lines[0])?.number ?? 0) : 0;
  const items = itemsOf(open, lines, begun);
  const parsed = items.map((item) => itemFrom(item, depth));
  const tight = !items.some((item, number) => isLoose(item, number === items.length - 1));
  return Object.freeze({ type: "list", ordered, first, tight, items: Object.freeze(parsed) });
}

/**
 * @typedef {{begun: boolean, lines: string[]}} Gathered
 */

/** @param {OpenList} open @param {readonly string[]} lines @param {boolean} begun @returns {Gathered[]} */
function itemsOf(open, lines, begun) {
  /** @type {Gathered[]} */
  const items = [];
  lines.forEach((line, number) => {
    if (number > 0 || !begun) goesOn(open, line, lines[number + 1] ?? "");
    if (open.began) items.push({ begun: true, lines: [dedent(markerGone(line), open.content)] });
    else if (items.length > 0) items[items.length - 1].lines.push(dedent(line, open.inner));
    else items.push({ begun: false, lines: [dedent(line, open.inner)] });
  });
  return items;
}

/** A marker's columns as blanks. @param {string} line @returns {string} */
function markerGone(line) {
  const indent = indentOf(line);
  const marked = dedent(line, indent);
  const marker = /^(?:\d+)?./.exec(marked)?.[0] ?? "";
  return " ".repeat(indent + marker.length) + marked.slice(marker.length);
}

/** @param {Gathered} item @param {number} depth @returns {Item} */
function itemFrom({ begun, lines }, depth) {
  const { task, text } = begun ? taskOf(lines[0]) : { task: null, text: lines[0] };
  return Object.freeze({ task, begun, blocks: blocksOf([text, ...lines.slice(1)], depth + 1) });
}

/** Whether a blank line is in it, or behind it if it is not the last. @param {Gathered} item @param {boolean} last */
function isLoose({ lines }, last) {
  const kept = last ? lines.slice(0, lines.findLastIndex((line) => !isBlank(line)) + 1) : lines;
  return kept.some((line, number) => number > 0 && isBlank(line));
}
