// Which `*`, `_` and `~~` mark what is between them: the rules of CommonMark, in time linear in the number of runs.

/**
 * @typedef {{kind: "run", char: string, count: number, left: number, canOpen: boolean, canClose: boolean,
 *   opens: number[], closes: number[]}} Run
 *   `left`: how many of its marks are text; `opens` and `closes`: how many marks each pair takes, the inmost first.
 */

const BLANK = /^\s$/u;
const PUNCTUATION = /^[\p{P}\p{S}]$/u;

/**
 * A run of marks, by what stands before and behind it.
 * @param {string} char
 * @param {number} count
 * @param {string} before
 * @param {string} behind
 * @returns {Run}
 */
export function run(char, count, before, behind) {
  const left = flanks(before, behind);
  const right = flanks(behind, before);
  const within = char === "_";
  const pairs = char !== "~" || count === 2;
  return {
    kind: "run",
    char,
    count,
    left: count,
    canOpen: pairs && left && (!within || !right || PUNCTUATION.test(before)),
    canClose: pairs && right && (!within || !left || PUNCTUATION.test(behind)),
    opens: [],
    closes: [],
  };
}

/** @param {string} outside @param {string} inside @returns {boolean} */
function flanks(outside, inside) {
  if (inside === "" || BLANK.test(inside)) return false;
  return !PUNCTUATION.test(inside) || outside === "" || BLANK.test(outside) || PUNCTUATION.test(outside);
}

/**
 * Pair them off.
 * @param {readonly Run[]} runs
 */
export function pair(runs) {
  /** @type {Run[]} */
  const openers = [];
  /** @type {Map<string, number>} */
  const searched = new Map(); // how many of the openers are known to be none for closers like this
  for (const closer of runs) {
    if (closer.canClose) close(closer, openers, searched);
    if (closer.canOpen && closer.left > 0) openers.push(closer);
  }
}

/** @param {Run} closer @param {Run[]} openers @param {Map<string, number>} searched */
function close(closer, openers, searched) {
  const like = `${closer.char}${closer.canOpen}${closer.count % 3}`;
  while (closer.left > 0) {
    let at = openers.length - 1;
    const floor = searched.get(like) ?? 0;
    while (at >= floor && !matches(openers[at], closer)) at--;
    if (at < floor) {
      searched.set(like, openers.length);
      return;
    }
    take(openers[at], closer);
    openers.length = openers[at].left > 0 ? at + 1 : at;
    for (const [key, number] of searched) searched.set(key, Math.min(number, openers.length));
  }
}

/** @param {Run} opener @param {Run} closer @returns {boolean} */
function matches(opener, closer) {
  if (opener.char !== closer.char) return false;
  if (!opener.canClose && !closer.canOpen) return true;
  return (opener.count + closer.count) % 3 !== 0 || (opener.count % 3 === 0 && closer.count % 3 === 0);
}

/** @param {Run} opener @param {Run} closer */
function take(opener, closer) {
  const marks = opener.left >= 2 && closer.left >= 2 ? 2 : 1;
  opener.left -= marks;
  closer.left -= marks;
  opener.opens.push(marks);
  closer.closes.push(marks);
}
