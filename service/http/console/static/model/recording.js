// A log as far as it was read: its events in their order, what is missing between them, and the message as it was
// behind any of them. Copies of the fold are kept on the way, so that going anywhere takes a short stretch of events
// and never the whole log. What is kept is bounded; what comes beyond the bound is not taken, and whoever adds is told.

import { apply, copyOf, emptyFold } from "./fold.js";

/** @typedef {import("./fold.js").Fold} Fold */
/** @typedef {import("./position.js").Position} Position */
/** @typedef {{position: Position, chunk: import("./fold.js").Chunk, bytes: number}} LogEvent */
/** @typedef {{place: number, lost: number}} Missing `lost` events in front of this place; 0: others stood there */
/** @typedef {{events: number, bytes: number, stretch: number}} Limits */
/**
 * Places count from 0; `shown` is a number of events: the message behind the first k of them.
 * @typedef {object} Recording
 * @property {LogEvent[]} events
 * @property {Missing[]} missing
 * @property {() => number} bytes
 * @property {() => boolean} isFull
 * @property {(events: LogEvent[]) => number} add how many of them were taken
 * @property {(position: Position) => number} placeOf the place of this event; -1 where it is not here
 * @property {(shown: number) => Fold} foldAt for looking at only, until it is asked for the next time
 */

/** @type {Readonly<Limits>} */
export const LIMITS = Object.freeze({ events: 300_000, bytes: 256 * 1024 * 1024, stretch: 1000 });

/**
 * @param {Fold} [before] the message in front of the first event
 * @param {number} [begin] the number of the event that comes first
 * @param {Limits} [limits] how much is kept, and how many events lie between two copies of the fold at least
 * @returns {Recording}
 */
export function recording(before = emptyFold(), begin = 1, limits = LIMITS) {
  const events = /** @type {LogEvent[]} */ ([]);
  const missing = /** @type {Missing[]} */ ([]);
  const copies = [{ shown: 0, fold: copyOf(before) }];
  const head = copyOf(before);
  let last = { shown: 0, fold: copyOf(before) };
  let bytes = 0;
  let next = begin;

  const isFull = () => events.length >= limits.events || bytes >= limits.bytes;

  /** @param {LogEvent} event */
  function take(event) {
    const { n } = event.position;
    if (n !== next) missing.push({ place: events.length, lost: Math.max(0, n - next) });
    next = n + 1;
    events.push(event);
    bytes += event.bytes;
    apply(head, event.chunk);
    // A copy costs as much as the message has parts: so many events pay for it.
    const due = copies[copies.length - 1].shown + Math.max(limits.stretch, head.parts.length + head.notes.length);
    if (events.length >= due) copies.push({ shown: events.length, fold: copyOf(head) });
  }

  /** @param {number} shown */
  function nearest(shown) {
    let [low, high] = [0, copies.length - 1];
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (copies[middle].shown <= shown) low = middle;
      else high = middle - 1;
    }
    return copies[low];
  }

  return {
    events,
    missing,
    bytes: () => bytes,
    isFull,
    add(given) {
      let taken = 0;
      while (taken < given.length && !isFull()) take(given[taken++]);
      return taken;
    },
    placeOf(position) {
      const place = placeBehind(events, position) - 1;
      const found = events[place]?.position;
      return found && found.n === position.n && found.ms === position.ms ? place : -1;
    },
    foldAt(shown) {
      const wanted = Math.max(0, Math.min(shown, events.length));
      const copy = nearest(wanted);
      if (last.shown > wanted || last.shown < copy.shown) last = { shown: copy.shown, fold: copyOf(copy.fold) };
      while (last.shown < wanted) apply(last.fold, events[last.shown++].chunk);
      return last.fold;
    },
  };
}

/** How many events stand at or below a position. @param {LogEvent[]} events @param {Position} position */
function placeBehind(events, position) {
  let [low, high] = [0, events.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    const { ms, n } = events[middle].position;
    if (ms < position.ms || (ms === position.ms && n <= position.n)) low = middle + 1;
    else high = middle;
  }
  return low;
}
