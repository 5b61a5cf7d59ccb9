// The end of a message: its last parts, and of its last texts no more than can be read. A log of an hour is looked at
// event by event; what has scrolled away long ago need not be drawn each time.

/** @typedef {import("./fold.js").Fold} Fold */

const MAX_PARTS = 60;
const MAX_CHARACTERS = 24 * 1024;
const STEP = 8 * 1024; // where a text begins changes that seldom

/**
 * @param {Fold} fold
 * @returns {{fold: Fold, parts: number, characters: number}} how many parts, and characters of texts, are left out
 */
export function excerptOf(fold) {
  let first = Math.max(0, fold.parts.length - MAX_PARTS);
  if (first) first = Math.ceil(first / 20) * 20; // that seldom the first part is another one
  let characters = 0;
  const parts = fold.parts.slice(first).map((part) => {
    if (typeof part.text !== "string" || part.text.length <= MAX_CHARACTERS) return part;
    const begin = Math.ceil((part.text.length - MAX_CHARACTERS) / STEP) * STEP;
    characters += begin;
    return { ...part, text: part.text.slice(begin) };
  });
  if (!first && !characters) return { fold, parts: 0, characters: 0 };
  const notes = fold.notes
    .filter((note) => note.place >= first)
    .map((note) => ({ ...note, place: note.place - first }));
  return { fold: { ...fold, parts, notes }, parts: first, characters };
}
