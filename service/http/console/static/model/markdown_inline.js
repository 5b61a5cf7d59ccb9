// What stands in a paragraph, a heading or a cell of Markdown: text, code, emphasis, links. No markup is unknown: what
// is none of these is text as it is written, tags too. Linear in time; marks nested deeper than `DEEPEST` are text.

import { pair, run } from "./markdown_emphasis.js";
import { isSpace, trimmed } from "./markdown_lines.js";
import { linkTarget } from "./links.js";
import { linkTail, unescaped } from "./markdown_link_tail.js";
import { treeOf } from "./markdown_nesting.js";

/**
 * @import {Run} from "./markdown_emphasis.js"
 * @import {Inline} from "./markdown_tree.js"
 * @import {Token} from "./markdown_nesting.js"
 */

/**
 * @typedef {{at: number, image: boolean, runs: number}} Bracket
 *   Where its token is, and how many runs were before it.
 * @typedef {{text: string, at: number, tokens: Token[], runs: Run[], brackets: Bracket[], spent: number,
 *   ticks: Map<number, number[]>}} Reading
 *   `spent`: how many of the brackets can begin no link any more, since one was in them; `ticks`: where runs of so many
 *   backticks are, the last one first.
 */

const SPECIAL = /[\\`*_~[\]!<&\n]|https?:\/\//giu;
const BARE = /https?:\/\/[^\s<>[\]`"]*/iuy;
const ANGLED = /<((?:https?|mailto):[^\s<>]*)>/iuy;
const ESCAPE = /\\([!-/:-@[-`{-~])|&(?:amp|lt|gt|quot|apos|#\d{1,7}|#x[0-9a-f]{1,6});/iuy;
const LETTER = /[\p{L}\p{N}_]/u;

/**
 * @param {string} text
 * @returns {readonly Inline[]}
 */
export function inline(text) {
  /** @type {Reading} */
  const reading = { text: trimmed(text), at: 0, tokens: [], runs: [], brackets: [], spent: 0, ticks: new Map() };
  for (const found of reading.text.matchAll(/`+/g)) {
    const places = reading.ticks.get(found[0].length);
    if (places) places.push(found.index);
    else reading.ticks.set(found[0].length, [found.index]);
  }
  for (const places of reading.ticks.values()) places.reverse();
  while (reading.at < reading.text.length) step(reading);
  pair(reading.runs);
  return treeOf(reading.tokens);
}

/** @param {Reading} reading */
function step(reading) {
  SPECIAL.lastIndex = reading.at;
  const found = SPECIAL.exec(reading.text);
  const next = found ? found.index : reading.text.length;
  if (next > reading.at) say(reading, reading.text.slice(reading.at, next));
  reading.at = next;
  if (found) (READERS[found[0]] ?? bare)(reading);
}

/** @type {Record<string, (reading: Reading) => void>} */
const READERS = {
  "\\": escape,
  "&": escape,
  "`": code,
  "*": marks,
  _: marks,
  "~": marks,
  "[": (reading) => bracket(reading, false),
  "!": (reading) => (reading.text[reading.at + 1] === "[" ? bracket(reading, true) : literal(reading, 1)),
  "]": closing,
  "<": angled,
  "\n": lineBreak,
};

/** @param {Reading} reading @param {string} text */
function say(reading, text) {
  reading.tokens.push({ kind: "text", text });
}

/** So much of the source is text. @param {Reading} reading @param {number} length */
function literal(reading, length) {
  say(reading, reading.text.slice(reading.at, reading.at + length));
  reading.at += length;
}

/** @param {Reading} reading */
function escape(reading) {
  ESCAPE.lastIndex = reading.at;
  const found = ESCAPE.exec(reading.text);
  if (found) {
    say(reading, unescaped(found[0]));
    reading.at += found[0].length;
  } else if (reading.text[reading.at] === "\\" && reading.text[reading.at + 1] === "\n") {
    reading.at++;
    endLine(reading, true);
  } else {
    literal(reading, 1);
  }
}

/** @param {Reading} reading */
function lineBreak(reading) {
  const last = reading.tokens.at(-1);
  let blanks = 0;
  if (last?.kind === "text") {
    let end = last.text.length;
    while (end > 0 && isSpace(last.text[end - 1])) end--;
    blanks = last.text.slice(end).replaceAll("\r", "").length;
    last.text = last.text.slice(0, end);
  }
  endLine(reading, blanks >= 2);
}

/** @param {Reading} reading @param {boolean} hard */
function endLine(reading, hard) {
  reading.tokens.push({ kind: "node", node: Object.freeze({ type: "break", hard }) });
  reading.at++;
  while (isSpace(reading.text[reading.at])) reading.at++;
}

/** @param {Reading} reading */
function code(reading) {
  const { text, at } = reading;
  const length = lengthOfRun(text, at);
  const places = reading.ticks.get(length) ?? [];
  while (places.length > 0 && places[places.length - 1] <= at) places.pop();
  const end = places.pop();
  if (end === undefined) {
    literal(reading, length);
    return;
  }
  let inside = text
    .slice(at + length, end)
    .replaceAll("\r\n", " ")
    .replaceAll("\n", " ");
  if (inside.startsWith(" ") && inside.endsWith(" ") && trimmed(inside) !== "") inside = inside.slice(1, -1);
  reading.tokens.push({ kind: "node", node: Object.freeze({ type: "code", text: inside }) });
  reading.at = end + length;
}

/** @param {string} text @param {number} at @returns {number} */
function lengthOfRun(text, at) {
  let end = at + 1;
  while (text[end] === text[at]) end++;
  return end - at;
}

/** @param {Reading} reading */
function marks(reading) {
  const { text, at } = reading;
  const length = lengthOfRun(text, at);
  const found = run(text[at], length, characterBefore(text, at), characterAt(text, at + length));
  reading.tokens.push(found);
  reading.runs.push(found);
  reading.at += length;
}

/** @param {string} text @param {number} at @returns {string} */
function characterAt(text, at) {
  return at < text.length ? String.fromCodePoint(/** @type {number} */ (text.codePointAt(at))) : "";
}

/** @param {string} text @param {number} at @returns {string} */
function characterBefore(text, at) {
  if (at === 0) return "";
  const before = at > 1 ? characterAt(text, at - 2) : "";
  return before.length === 2 ? before : text[at - 1];
}

/** @param {Reading} reading @param {boolean} image */
function bracket(reading, image) {
  const text = image ? "![" : "[";
  reading.brackets.push({ at: reading.tokens.length, image, runs: reading.runs.length });
  literal(reading, text.length);
}

/** @param {Reading} reading */
function closing(reading) {
  const opener = reading.brackets.pop();
  const spent = reading.brackets.length < reading.spent;
  reading.spent = Math.min(reading.spent, reading.brackets.length);
  const tail = opener && (opener.image || !spent) ? linkTail(reading.text, reading.at + 1) : null;
  if (!opener || !tail) {
    literal(reading, 1);
    return;
  }
  pair(reading.runs.splice(opener.runs));
  reading.tokens[opener.at] = { kind: "link", target: tail.target, title: tail.title };
  if (reading.tokens.length === opener.at + 1) say(reading, tail.target);
  reading.tokens.push({ kind: "end" });
  reading.at = tail.end;
  if (!opener.image) reading.spent = reading.brackets.length;
}

/** @param {Reading} reading */
function angled(reading) {
  ANGLED.lastIndex = reading.at;
  const found = ANGLED.exec(reading.text);
  const target = found && linkTarget(found[1]);
  if (found && target) autolink(reading, target, found[1], found[0].length);
  else literal(reading, 1);
}

/** @param {Reading} reading */
function bare(reading) {
  BARE.lastIndex = reading.at;
  const found = BARE.exec(reading.text)?.[0] ?? reading.text[reading.at];
  const address = withoutEnd(found);
  const target = LETTER.test(characterBefore(reading.text, reading.at)) ? null : linkTarget(address);
  if (target) autolink(reading, target, address, address.length);
  else literal(reading, found.length);
}

/** Without what belongs to the sentence around it. @param {string} address @returns {string} */
function withoutEnd(address) {
  let surplus = address.split(")").length - address.split("(").length;
  let end = address.length;
  for (; end > 0; end--) {
    const last = address[end - 1];
    if (last === ")" && surplus > 0) surplus--;
    else if (!"?!.,:;*_~'|\\".includes(last)) break;
  }
  return address.slice(0, end);
}

/** @param {Reading} reading @param {string} target @param {string} text @param {number} length */
function autolink(reading, target, text, length) {
  reading.tokens.push({ kind: "link", target, title: "" }, { kind: "text", text }, { kind: "end" });
  reading.at += length;
}
