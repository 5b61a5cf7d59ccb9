// What a line of Markdown is by itself. Every question is answered in time linear in the line. One that is longer than
// a block may be is no fence, rule, border of a table or blank, whatever it says: that would be known only at its end.

/** @import {Align} from "./markdown_tree.js" */

export const LIMIT = 32 * 1024;
const TAB = 4;

const FENCE = /^[ \t]*(`{3,}|~{3,})(.*)$/s;
const HEADING = /^[ \t]*(#{1,6})(?=[ \t\r]|$)/;
const ITEM = /^([ \t]*)([-*+]|(\d{1,9})([.)]))(?=[ \t\r]|$)([ \t]*)/;
const TASK = /^\[([ xX])\](?=[ \t])/;

/**
 * How many columns of blanks a line begins with.
 * @param {string} line
 * @returns {number}
 */
export function indentOf(line) {
  let columns = 0;
  for (let at = 0; at < line.length; at++) {
    if (line[at] === " ") columns++;
    else if (line[at] === "\t") columns += TAB - (columns % TAB);
    else break;
  }
  return columns;
}

/**
 * The line without so many columns of blanks, or as many as it has.
 * @param {string} line
 * @param {number} columns
 * @returns {string}
 */
export function dedent(line, columns) {
  let gone = 0;
  let at = 0;
  while (gone < columns && at < line.length) {
    if (line[at] === " ") gone++;
    else if (line[at] === "\t") gone += TAB - (gone % TAB);
    else break;
    at++;
  }
  return " ".repeat(Math.max(0, gone - columns)) + line.slice(at);
}

/**
 * Without blanks at both ends. `trim` takes away more, which may be text.
 * @param {string} text
 * @returns {string}
 */
export function trimmed(text) {
  let start = 0;
  let end = text.length;
  while (start < end && isSpace(text[start])) start++;
  while (end > start && isSpace(text[end - 1])) end--;
  return text.slice(start, end);
}

/** @param {string} char @returns {boolean} */
export function isSpace(char) {
  return char === " " || char === "\t" || char === "\r" || char === "\n";
}

/** @param {string} line @returns {boolean} */
export function isBlank(line) {
  return line.length <= LIMIT && trimmed(line) === "";
}

/**
 * @param {string} line
 * @returns {{mark: string, indent: number, language: string} | null}
 */
export function fenceOf(line) {
  const found = line.length <= LIMIT ? FENCE.exec(line) : null;
  if (!found || (found[1][0] === "`" && found[2].includes("`"))) return null;
  return { mark: found[1], indent: indentOf(line), language: trimmed(found[2]) };
}

/**
 * Whether a fence that was opened by this mark ends here.
 * @param {string} line
 * @param {string} mark
 * @returns {boolean}
 */
export function closesFence(line, mark) {
  const found = line.length <= LIMIT ? FENCE.exec(line) : null;
  return found !== null && found[1].startsWith(mark) && trimmed(found[2]) === "";
}

/**
 * @param {string} line
 * @returns {{level: number, text: string} | null}
 */
export function headingOf(line) {
  const found = HEADING.exec(line);
  if (!found) return null;
  const text = trimmed(line.slice(found[0].length));
  let end = text.length;
  while (end > 0 && text[end - 1] === "#") end--;
  const closed = end < text.length && (end === 0 || isSpace(text[end - 1]));
  return { level: found[1].length, text: closed ? trimmed(text.slice(0, end)) : text };
}

/** @param {string} line @returns {boolean} */
export function isRule(line) {
  if (line.length > LIMIT) return false;
  const text = trimmed(line);
  const mark = text[0];
  if (mark !== "-" && mark !== "*" && mark !== "_") return false;
  let marks = 0;
  for (const char of text) {
    if (char === mark) marks++;
    else if (!isSpace(char)) return false;
  }
  return marks >= 3;
}

/** @param {string} line @returns {boolean} */
export function isQuote(line) {
  return /^[ \t]*>/.test(line);
}

/**
 * The line without its `>`.
 * @param {string} line
 * @returns {string}
 */
export function unquoted(line) {
  const rest = line.slice(line.indexOf(">") + 1);
  return rest[0] === " " ? rest.slice(1) : rest;
}

/**
 * A line that begins an item: `mark` tells lists apart, `indent` and `content` are the columns of marker and text.
 * @param {string} line
 * @returns {{mark: string, ordered: boolean, number: number, indent: number, content: number, text: string} | null}
 */
export function itemOf(line) {
  const found = ITEM.exec(line);
  if (!found || isRule(line)) return null;
  const indent = indentOf(line);
  const after = indent + found[2].length;
  const blanks = indentOf(" ".repeat(after % TAB) + found[5]) - (after % TAB);
  const text = line.slice(found[0].length);
  return {
    mark: found[4] ?? found[2],
    ordered: found[3] !== undefined,
    number: Number(found[3] ?? 0),
    indent,
    content: after + (blanks > TAB || text === "" ? 1 : blanks),
    text,
  };
}

/**
 * The box before an item's text, and the text behind it.
 * @param {string} line
 * @returns {{task: boolean | null, text: string}}
 */
export function taskOf(line) {
  const found = TASK.exec(line);
  return found ? { task: found[1] !== " ", text: line.slice(4) } : { task: null, text: line };
}

/**
 * The cells of a row. In all of them `\|` is a `|`, code too.
 * @param {string} line
 * @returns {string[]}
 */
export function cellsOf(line) {
  const row = trimmed(line);
  const cells = [];
  let cell = "";
  for (let at = row[0] === "|" ? 1 : 0; at < row.length; at++) {
    if (row[at] === "\\" && at + 1 < row.length) {
      at++;
      cell += row[at] === "|" ? "|" : `\\${row[at]}`;
    } else if (row[at] === "|") {
      cells.push(trimmed(cell));
      cell = "";
    } else {
      cell += row[at];
    }
  }
  return cell === "" && cells.length > 0 ? cells : [...cells, trimmed(cell)];
}

/**
 * What the line below a table's header says of its columns; null if it is no such line.
 * @param {string} line
 * @returns {readonly Align[] | null}
 */
export function alignsOf(line) {
  if (line.length > LIMIT || !line.includes("|") || !/^[|:\- \t\r]+$/.test(line)) return null;
  const cells = cellsOf(line);
  if (!cells.every((cell) => /^:?-+:?$/.test(cell))) return null;
  return Object.freeze(
    cells.map((cell) => {
      const [left, right] = [cell.startsWith(":"), cell.endsWith(":")];
      if (left && right) return "center";
      if (right) return "right";
      return left ? "left" : null;
    }),
  );
}
