// The end of a message: its last parts, as far as they can be read at once. A log of an hour is looked at event by
// event; what was said long before need not be drawn each time.

/** @typedef {import("./fold.js").Fold} Fold */
/** @typedef {import("./fold.js").Part} Part */

const MOST_PARTS = 40;
const MOST_CHARACTERS = 8 * 1024;
const FEW_PARTS = 10; // the first part is another one only after so many,
const FEW_CHARACTERS = 2 * 1024; // and a text begins elsewhere only after so many: else all is drawn anew each time

/**
 * @param {Fold} fold
 * @returns {{fold: Fold, parts: number, characters: number}} how many parts, and characters of a text, are left out
 */
export function excerptOf(fold) {
  const first = firstOf(fold.parts);
  const parts = fold.parts.slice(first);
  const characters = lengthOf(parts[0]) > MOST_CHARACTERS ? beginOf(parts[0].text) : 0;
  if (!first && !characters) return { fold, parts: 0, characters: 0 };
  if (characters) parts[0] = { ...parts[0], text: parts[0].text.slice(characters) };
  const notes = fold.notes
    .filter((note) => note.place >= first)
    .map((note) => ({ ...note, place: note.place - first }));
  return { fold: { ...fold, parts, notes }, parts: first, characters };
}

/** @param {Part[]} parts */
function firstOf(parts) {
  let [first, characters] = [parts.length, 0];
  while (first > 0 && characters <= MOST_CHARACTERS && parts.length - first < MOST_PARTS) {
    first -= 1;
    characters += lengthOf(parts[first]);
  }
  if (first === 0 || lengthOf(parts[first]) > MOST_CHARACTERS) return first;
  return Math.min(parts.length - 1, Math.ceil(first / FEW_PARTS) * FEW_PARTS);
}

/** @param {Part | undefined} part */
function lengthOf(part) {
  return typeof part?.text === "string" ? part.text.length : 0;
}

/** @param {string} text */
function beginOf(text) {
  return Math.ceil((text.length - MOST_CHARACTERS) / FEW_CHARACTERS) * FEW_CHARACTERS;
}
