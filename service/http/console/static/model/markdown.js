// Markdown that grows while it is read. The source is cut into blocks that stand by themselves; of a text that has
// grown only the last of them, and what is new, are read again, and a block that is as it was is the same object. A
// block is never longer than `LIMIT`: what goes on is a further block, so no update costs more than the new text and a
// few of these, whatever is written.

import { blockOf, paragraph } from "./markdown_blocks.js";
import { goesOn, opened } from "./markdown_extent.js";
import { isBlank, LIMIT } from "./markdown_lines.js";

/**
 * @import {Open} from "./markdown_extent.js"
 * @import {Block, TopBlock} from "./markdown_tree.js"
 */

/**
 * @typedef {{start: number, carried: Open | null, inLine: boolean}} Place
 *   Where a block may begin, with what is still open there if the one before was cut.
 * @typedef {{place: Place, end: number, open: Open, next: Place}} Stretch
 *   A block's part of the source; `open`: as it is before its first line, or behind that if it begins there.
 */

/**
 * A reader of one text. `update` is given all of it each time, and answers with its blocks.
 * @returns {{update: (text: string) => readonly TopBlock[]}}
 */
export function markdown() {
  let source = "";
  /** @type {Stretch[]} */
  let stretches = [];
  /** @type {readonly TopBlock[]} */
  let blocks = Object.freeze([]);

  /** @param {string} text @returns {readonly TopBlock[]} */
  function update(text) {
    if (text === source) return blocks;
    const common = commonLength(source, text);
    const kept = settled(stretches, text, common);
    const made = stretchesFrom(text, stretches[kept]?.place ?? { start: 0, carried: null, inLine: false });
    const same = made.findIndex((stretch, number) => !isSame(stretch, stretches[kept + number], common));
    const first = kept + (same < 0 ? made.length : same);
    const read = made.slice(first - kept).map((stretch) => topBlock(text, stretch));
    source = text;
    stretches = [...stretches.slice(0, kept), ...made];
    blocks = Object.freeze([...blocks.slice(0, first), ...read]);
    return blocks;
  }

  return { update };
}

/** @param {string} one @param {string} other @returns {number} */
function commonLength(one, other) {
  if (other.startsWith(one)) return one.length;
  let at = 0;
  while (at < one.length && one[at] === other[at]) at++;
  return at;
}

/**
 * How many blocks cannot have changed, since what decided where they begin and end is within what both texts have. A
 * line may still grow, and a header is known by the line below it: so that is before the last two lines, or, of a block
 * that was cut for its length, within that length.
 * @param {readonly Stretch[]} stretches
 * @param {string} text
 * @param {number} common
 * @returns {number}
 */
function settled(stretches, text, common) {
  const last = common > 0 ? text.lastIndexOf("\n", common - 1) : -1;
  const sure = last > 0 ? text.lastIndexOf("\n", last - 1) + 1 : 0;
  let kept = stretches.length;
  while (kept > 0) {
    kept--;
    const { start, carried } = stretches[kept].place;
    if (start < sure || (carried && start + LIMIT < common)) return kept;
  }
  return 0;
}

/** @param {Stretch} one @param {Stretch | undefined} other @param {number} common @returns {boolean} */
function isSame(one, other, common) {
  if (other === undefined || one.end !== other.end || one.end > common) return false;
  return one.place.start === other.place.start && one.open.kind === other.open.kind;
}

/** @param {string} text @param {Place} place @returns {Stretch[]} */
function stretchesFrom(text, place) {
  const lines = linesOf(text);
  const stretches = [];
  let next = withoutBlanks(lines, place);
  while (next.start < text.length) {
    const stretch = stretchAt(lines, next);
    stretches.push(stretch);
    next = withoutBlanks(lines, stretch.next);
  }
  return stretches;
}

/**
 * @typedef {{text: string, at: (start: number) => string, behind: (start: number) => number}} Lines
 *   The line at a place, or as much of it as tells that it is too long; and where the one behind it begins.
 */

/** @param {string} text @returns {Lines} */
function linesOf(text) {
  let from = 0;
  let end = -1; // of the line that was asked for last: a very long one is not searched again for each of its parts
  /** @param {number} start @returns {number} */
  function behind(start) {
    if (start < from || start >= end) {
      from = start;
      end = text.indexOf("\n", start) + 1 || text.length;
    }
    return end;
  }
  return {
    text,
    behind,
    at: (start) => {
      const line = text.slice(start, Math.min(behind(start), start + LIMIT + 2));
      return line.endsWith("\n") ? line.slice(0, -1) : line;
    },
  };
}

/** The place behind blank lines that belong to no block. @param {Lines} lines @param {Place} place @returns {Place} */
function withoutBlanks(lines, place) {
  let { start, carried, inLine } = place;
  while (start < lines.text.length && carried?.kind !== "fence" && !inLine && isBlank(lines.at(start))) {
    if (carried) carried = { ...carried };
    if (carried && !goesOn(carried, "", "")) carried = null;
    start = lines.behind(start);
  }
  return { start, carried, inLine };
}

/** @param {Lines} lines @param {Place} place @returns {Stretch} */
function stretchAt(lines, place) {
  const { text, at, behind } = lines;
  const { start } = place;
  let carried = place.carried && { ...place.carried };
  /** @param {number} from */
  const lineBehind = (from) => (behind(from) - from > LIMIT ? "" : at(behind(from)));
  if (carried && !place.inLine && !goesOn(carried, at(start), lineBehind(start))) carried = null;
  const open = carried ?? opened(at(start), lineBehind(start), 0);
  const before = carried && place.carried ? place.carried : { ...open };
  /** @type {(end: number, next: Place) => Stretch} */
  const stretch = (end, next) => {
    return { place: { ...place, carried: carried && place.carried }, end, open: before, next };
  };
  let end = start;
  let from = start;
  while (from < text.length) {
    const next = behind(from);
    if (next - start > LIMIT) {
      const cut = from > start ? from : cutBefore(text, start + LIMIT);
      return stretch(from > start ? end : cut, { start: cut, carried: { ...open }, inLine: from === start });
    }
    if (from > start && !goesOn(open, at(from), lineBehind(from))) break;
    if (from === start || open.kind === "fence" || !isBlank(at(from))) end = next;
    from = next;
  }
  return stretch(end, { start: from, carried: null, inLine: false });
}

/** A place that is not in the midst of a character. @param {string} text @param {number} at @returns {number} */
function cutBefore(text, at) {
  return /[\ud800-\udbff]/.test(text[at - 1]) ? at - 1 : at;
}

/** @param {string} text @param {Stretch} stretch @returns {TopBlock} */
function topBlock(text, { place, end, open }) {
  const { start, carried, inLine } = place;
  const lines = text.slice(start, text[end - 1] === "\n" ? end - 1 : end).split("\n");
  const content = Object.freeze(contentOf(open, lines, carried !== null, inLine));
  return Object.freeze({ start, end, continues: carried !== null, inLine: carried !== null && inLine, content });
}

/** @param {Open} open @param {string[]} lines @param {boolean} continues @param {boolean} inLine @returns {Block[]} */
function contentOf(open, lines, continues, inLine) {
  if (!continues || !inLine || open.kind === "fence") {
    return [blockOf(open, lines, { depth: 0, begun: !continues, inLine: continues && inLine })];
  }
  const [rest, ...others] = lines;
  if (others.length === 0) return [paragraph(rest)];
  return [paragraph(rest), blockOf(open, others, { depth: 0, begun: false, inLine: false })];
}
