// Positions: an event's place in its log, `<milliseconds>-<number>`. Numbers are dense from 1, milliseconds never go
// back.

/** @typedef {{ms: number, n: number}} Position */

const FORM = /^([0-9]{1,16})-([0-9]{1,12})$/;

/** @type {Readonly<Position>} */
export const BEGINNING = Object.freeze({ ms: 0, n: 0 });

/**
 * The position that a text names; null where it names none.
 * @param {string} text
 * @returns {Position | null}
 */
export function parsePosition(text) {
  const found = FORM.exec(text);
  return found ? { ms: Number(found[1]), n: Number(found[2]) } : null;
}

/** @param {Position} position */
export function positionText(position) {
  return `${position.ms}-${position.n}`;
}
