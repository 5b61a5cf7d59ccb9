// Which events are looked at: those of some families, in which a text occurs. Events are looked through a stretch at a
// time, so that a long log holds nothing up; counting goes on whatever is chosen.

import { FAMILIES, familyOf, saidBy } from "./summary.js";

/** @typedef {import("./summary.js").Family} Family */
/** @typedef {{chunk: import("./fold.js").Chunk, bytes: number}[]} Events */
/**
 * @typedef {object} Filtering
 * @property {() => number} length how many events are looked at
 * @property {(row: number) => number} place of the event in this row
 * @property {(place: number) => number} row of this event, or of the last one in front of it; -1: there is none
 * @property {(choice: Choice) => void} choose
 * @property {(most: number) => boolean} advance look through so many more events at most; whether that were all
 * @property {() => Record<Family, number>} counts of the events so far
 */
/** @typedef {{without: ReadonlySet<Family>, text: string}} Choice */

const STRETCH_BYTES = 1024 * 1024; // what takes some milliseconds to look through

/** @type {Choice} */
export const ALL = { without: new Set(), text: "" };

/** @param {Events} events grows behind our back @returns {Filtering} */
export function filtering(events) {
  const counts = /** @type {Record<Family, number>} */ (Object.fromEntries(FAMILIES.map((family) => [family, 0])));
  let counted = 0;
  let places = /** @type {number[] | null} */ (null); // null: all
  let looked = 0;
  let chosen = ALL;

  /** @param {number} place */
  function isWanted(place) {
    const { chunk } = events[place];
    if (chosen.without.has(familyOf(chunk.type))) return false;
    return chosen.text === "" || `${chunk.type} ${saidBy(chunk)}`.toLowerCase().includes(chosen.text);
  }

  return {
    length: () => places?.length ?? events.length,
    place: (row) => places?.[row] ?? row,
    row(place) {
      if (!places) return Math.min(place, events.length - 1);
      let [low, high] = [0, places.length];
      while (low < high) {
        const middle = (low + high) >> 1;
        if (places[middle] <= place) low = middle + 1;
        else high = middle;
      }
      return low - 1;
    },
    choose({ without, text }) {
      chosen = { without: new Set(without), text: text.trim().toLowerCase() };
      places = chosen.without.size || chosen.text ? [] : null;
      looked = 0;
    },
    advance(most) {
      for (const end = Math.min(events.length, counted + most); counted < end; counted++) {
        counts[familyOf(events[counted].chunk.type)] += 1;
      }
      if (!places) return counted === events.length;
      const end = Math.min(events.length, looked + most);
      for (let bytes = 0; looked < end && bytes < STRETCH_BYTES; looked++) {
        if (isWanted(looked)) places.push(looked);
        if (chosen.text) bytes += events[looked].bytes;
      }
      return counted === events.length && looked === events.length;
    },
    counts: () => counts,
  };
}
