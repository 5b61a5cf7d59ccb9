// What stands behind the brackets of a link in Markdown: `(address "title")`.

import { linkTarget } from "./links.js";
import { isSpace } from "./markdown_lines.js";

const LONGEST = 4096; // of all of it
const MOST_PARENTHESES = 32; // in each other; with that, no more than so many others are read behind a bracket
const ESCAPES = /\\([!-/:-@[-`{-~])|&(?:(amp|lt|gt|quot|apos)|#(\d{1,7})|#x([0-9a-f]{1,6}));/giu;
const ANGLED = /<((?:[^<>\n\\]|\\.)*)>/suy;
const TITLES = /** @type {Record<string, string>} */ ({ '"': '"', "'": "'", "(": ")" });
const NAMED = /** @type {Record<string, string>} */ ({ amp: "&", lt: "<", gt: ">", quot: '"', apos: "'" });

/**
 * The text with what is escaped in it, by a backslash or as an entity.
 * @param {string} text
 * @returns {string}
 */
export function unescaped(text) {
  return text.replace(ESCAPES, (_, mark, name, decimal, hexadecimal) => {
    if (mark) return mark;
    if (name) return NAMED[name.toLowerCase()];
    const code = decimal ? Number(decimal) : Number.parseInt(hexadecimal, 16);
    const none = code === 0 || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff);
    return none ? "\ufffd" : String.fromCodePoint(code);
  });
}

/**
 * What stands there, and where it ends; null if that is no address, or none that a link may have.
 * @param {string} text
 * @param {number} at
 * @returns {{target: string, title: string, end: number} | null}
 */
export function linkTail(text, at) {
  if (text[at] !== "(") return null;
  const tail = text.slice(at, at + LONGEST);
  const address = addressAt(tail, afterSpace(tail, 1));
  if (!address) return null;
  const behind = afterSpace(tail, address.end);
  const title = behind > address.end ? titleAt(tail, behind) : null;
  const end = title ? afterSpace(tail, title.end) : behind;
  const target = tail[end] === ")" ? linkTarget(unescaped(address.text)) : null;
  return target ? { target, title: unescaped(title?.text ?? ""), end: at + end + 1 } : null;
}

/** @param {string} text @param {number} at @returns {number} */
function afterSpace(text, at) {
  while (isSpace(text[at])) at++;
  return at;
}

/** @param {string} text @param {number} at @returns {{text: string, end: number} | null} */
function addressAt(text, at) {
  if (text[at] === "<") {
    ANGLED.lastIndex = at;
    const found = ANGLED.exec(text);
    return found && { text: found[1], end: at + found[0].length };
  }
  let open = 0;
  let end = at;
  for (; end < text.length && !isSpace(text[end]); end++) {
    if (text[end] === "\\") end++;
    else if (text[end] === "(" && ++open > MOST_PARENTHESES) return null;
    else if (text[end] === ")" && open-- === 0) break;
  }
  return end > at ? { text: text.slice(at, end), end } : null;
}

/** @param {string} text @param {number} at @returns {{text: string, end: number} | null} */
function titleAt(text, at) {
  const last = TITLES[text[at]];
  if (!last) return null;
  for (let end = at + 1; end < text.length; end++) {
    if (text[end] === "\\") end++;
    else if (text[end] === last) return { text: text.slice(at + 1, end), end: end + 1 };
    else if (text[end] === text[at]) return null;
  }
  return null;
}
