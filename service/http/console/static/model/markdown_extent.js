// How far a block of Markdown goes: what a line opens, and whether the next one still belongs to it. What is known of
// an open block is one flat value, so that it can be kept, and gone on from.
//
// Differs from CommonMark where models do: what is indented is no code; a line without `>` ends a quote; a line without
// `|` ends a table; what is indented by two belongs to an item, however wide its marker is.

import {
  alignsOf,
  cellsOf,
  closesFence,
  fenceOf,
  headingOf,
  indentOf,
  isBlank,
  isQuote,
  isRule,
  itemOf,
  LIMIT,
} from "./markdown_lines.js";

/** @import {Align} from "./markdown_tree.js" */

/**
 * @typedef {{kind: "paragraph" | "heading" | "rule" | "quote" | "plain"}} Simple
 *   `plain` is too deep inside others to be looked at.
 * @typedef {{kind: "fence", mark: string, indent: number, language: string, closed: boolean}} OpenFence
 * @typedef {{kind: "table", aligns: readonly Align[], border: boolean}} OpenTable
 *   `border`: the line below the header comes next.
 * @typedef {{kind: "list", mark: string, ordered: boolean, indent: number, content: number, inner: number,
 *   blank: boolean, began: boolean}} OpenList
 *   `inner`: how far the rest of the last item is indented, 0 until that is known; `blank`: the last line was;
 *   `began`: an item did, with the last line.
 * @typedef {Simple | OpenFence | OpenTable | OpenList} Open
 */

export const DEEPEST = 16;

/**
 * What this line opens. It is not blank.
 * @param {string} line
 * @param {string} next
 * @param {number} depth how many blocks are around it
 * @returns {Open}
 */
export function opened(line, next, depth) {
  if (depth >= DEEPEST) return { kind: "plain" };
  const fence = fenceOf(line);
  if (fence) return { kind: "fence", ...fence, closed: false };
  if (headingOf(line)) return { kind: "heading" };
  if (isRule(line)) return { kind: "rule" };
  if (isQuote(line)) return { kind: "quote" };
  const item = itemOf(line);
  if (item) {
    const { mark, ordered, indent, content } = item;
    return { kind: "list", mark, ordered, indent, content, inner: 0, blank: false, began: true };
  }
  const aligns = tableBegins(line, next);
  return aligns ? { kind: "table", aligns, border: true } : { kind: "paragraph" };
}

/**
 * Whether this line belongs to the block, too; the block knows of it then.
 * @param {Open} open
 * @param {string} line
 * @param {string} next
 * @returns {boolean}
 */
export function goesOn(open, line, next) {
  switch (open.kind) {
    case "fence":
      return fenceGoesOn(open, line);
    case "list":
      return listGoesOn(open, line, next);
    case "table":
      return tableGoesOn(open, line);
    case "quote":
      return isQuote(line);
    case "paragraph":
      return !isBlank(line) && !interrupts(line, next);
    case "plain":
      return !isBlank(line);
    default:
      return false;
  }
}

/** @param {OpenFence} open @param {string} line @returns {boolean} */
function fenceGoesOn(open, line) {
  if (open.closed) return false;
  open.closed = closesFence(line, open.mark);
  return true;
}

/** @param {OpenTable} open @param {string} line @returns {boolean} */
function tableGoesOn(open, line) {
  if (open.border) {
    open.border = false;
    return true;
  }
  return line.includes("|") && !interrupts(line, "");
}

/** @param {OpenList} open @param {string} line @param {string} next @returns {boolean} */
function listGoesOn(open, line, next) {
  open.began = false;
  if (isBlank(line)) {
    open.blank = true;
    return true;
  }
  const wasBlank = open.blank;
  open.blank = false;
  const columns = indentOf(line);
  if (columns >= (open.inner || Math.min(open.content, open.indent + 2))) {
    open.inner ||= Math.min(columns, open.content);
    return true;
  }
  const item = itemOf(line);
  if (item && item.mark === open.mark) {
    Object.assign(open, { indent: item.indent, content: item.content, inner: 0, began: true });
    return true;
  }
  return !wasBlank && !interrupts(line, next);
}

/** @param {string} line @param {string} next @returns {boolean} */
function interrupts(line, next) {
  if (fenceOf(line) || headingOf(line) || isRule(line) || isQuote(line)) return true;
  const item = itemOf(line);
  // A number at the beginning of a line is more often that of a year than that of an item.
  if (item) return item.text !== "" && (!item.ordered || item.number === 1);
  return tableBegins(line, next) !== null;
}

/** @param {string} line @param {string} next @returns {readonly Align[] | null} */
function tableBegins(line, next) {
  const aligns = line.length <= LIMIT && line.includes("|") ? alignsOf(next) : null;
  return aligns && cellsOf(line).length === aligns.length ? aligns : null;
}
