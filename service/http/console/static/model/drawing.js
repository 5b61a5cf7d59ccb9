// Spans and marks as shapes of a drawing: times to scale, what overlaps in rows of a lane, what would be too small to
// see put together with its neighbours, so that there are never more shapes than can be drawn at once.

import { LANES } from "./spans.js";

/** @typedef {import("./spans.js").Span} Span */
/** @typedef {import("./spans.js").Mark} Mark */
/** @typedef {import("./spans.js").Lane} Lane */
/** @typedef {{from: number, to: number}} Window a stretch of time in milliseconds */
/**
 * `count` spans in one shape; the label is that of the first. `output` is where the first piece of it came.
 * @typedef {object} Shape
 * @property {string} kind
 * @property {string} label
 * @property {number} row of the lane
 * @property {number} x
 * @property {number} width
 * @property {number | null} output
 * @property {number} place of the first event
 * @property {number} count
 * @property {boolean} isOpen
 * @property {boolean} isBad
 * @property {number} milliseconds
 * @property {string} ended
 */
/** @typedef {{lane: Lane, rows: number, shapes: Shape[]}} DrawnLane */

const MOST_SHAPES = 600;
const MOST_ROWS = 4;
const LEAST_WIDTH = 2;
const MOST_JOINED = 24; // wide: each leads to its first event
const BAD = /^(error|failed|denied|without an end|cancelled)$/;

/**
 * The shapes of what lies in a window, on a drawing of this width.
 * @param {Span[]} spans
 * @param {Window} window
 * @param {number} width
 * @returns {DrawnLane[]}
 */
export function drawn(spans, window, width) {
  for (let apart = 1; ; apart *= 2) {
    const lanes = LANES.map((lane) => drawnLane(lane, spans, window, width, apart));
    if (lanes.reduce((sum, { shapes }) => sum + shapes.length, 0) <= MOST_SHAPES) return lanes;
  }
}

/**
 * The marks of a window, those that lie within `apart` of each other in one.
 * @param {Mark[]} marks
 * @param {Window} window
 * @param {number} width
 * @param {number} [apart]
 * @returns {{kind: string, label: string, x: number, place: number, count: number}[]}
 */
export function drawnMarks(marks, window, width, apart = 6) {
  const shapes = /** @type {ReturnType<typeof drawnMarks>} */ ([]);
  const last = /** @type {Map<string, (typeof shapes)[0]>} */ (new Map());
  for (const { kind, label, at, place } of marks) {
    const x = xOf(at, window, width);
    const before = last.get(kind);
    if (x < 0 || x > width) continue;
    if (before && x - before.x < apart) before.count += 1;
    else last.set(kind, shapes[shapes.push({ kind, label, x, place, count: 1 }) - 1]);
  }
  return shapes.length > MOST_SHAPES / 3 ? drawnMarks(marks, window, width, apart * 2) : shapes;
}

/** Where a moment lies. @param {number} ms @param {Window} window @param {number} width */
export function xOf(ms, { from, to }, width) {
  return ((ms - from) / Math.max(1, to - from)) * width;
}

/**
 * Round moments for an axis, counted from `origin`.
 * @param {Window} window
 * @param {number} origin
 * @param {number} most
 */
export function ticks({ from, to }, origin, most) {
  const step = STEPS.find((each) => (to - from) / each <= most) ?? (to - from) / most;
  const first = Math.ceil((from - origin) / step) * step;
  const count = Math.floor((to - origin - first) / step) + 1;
  return Array.from({ length: Math.max(0, count) }, (_, number) => origin + first + number * step);
}

const [SECOND, MINUTE, HOUR] = [1000, 60_000, 3_600_000];
const STEPS = [
  ...[1, 2, 5, 10, 20, 50, 100, 200, 500],
  ...[1, 2, 5, 10, 20, 30].map((each) => each * SECOND),
  ...[1, 2, 5, 10, 20, 30].map((each) => each * MINUTE),
  ...[1, 2, 4, 8, 24, 48, 168, 720].map((each) => each * HOUR),
];

/** @param {Lane} lane @param {Span[]} spans @param {Window} window @param {number} width @param {number} apart */
function drawnLane(lane, spans, window, width, apart) {
  const ends = /** @type {number[]} */ ([]); // of the rows
  const last = /** @type {Map<string, Shape>} */ (new Map()); // of each kind: only these are put together
  const shapes = /** @type {Shape[]} */ ([]);
  for (const span of spans) {
    if (span.lane !== lane || span.begin > window.to || (span.end ?? window.to) < window.from) continue;
    const shape = shapeOf(span, window, width);
    const close = last.get(span.kind);
    if (close && joins(close, shape, apart)) {
      join(close, shape);
      ends[close.row] = Math.max(ends[close.row], close.x + close.width);
      continue;
    }
    const row = ends.findIndex((end) => end <= shape.x + LEAST_WIDTH);
    shape.row = row < 0 ? Math.min(ends.length, MOST_ROWS - 1) : row;
    ends[shape.row] = Math.max(ends[shape.row] ?? 0, shape.x + shape.width);
    last.set(span.kind, shape);
    shapes.push(shape);
  }
  return { lane, rows: Math.max(1, ends.length), shapes };
}

/** @param {Span} span @param {Window} window @param {number} width @returns {Shape} */
function shapeOf(span, window, width) {
  const x = Math.max(0, xOf(span.begin, window, width));
  const end = Math.min(width, xOf(span.end ?? window.to, window, width));
  const output = span.output === null ? null : xOf(span.output, window, width);
  return {
    kind: span.kind,
    label: span.label,
    row: 0,
    x,
    width: Math.max(LEAST_WIDTH, end - x),
    output: output !== null && output > x && output < end ? output : null,
    place: span.place,
    count: 1,
    isOpen: span.end === null,
    isBad: BAD.test(span.ended),
    milliseconds: (span.end ?? window.to) - span.begin,
    ended: span.ended,
  };
}

/**
 * Two are one where neither would be seen beside the other.
 * @param {Shape} one
 * @param {Shape} next
 * @param {number} apart
 */
function joins(one, next, apart) {
  const isSmall = next.width <= LEAST_WIDTH * apart && one.width <= (one.count > 1 ? MOST_JOINED : LEAST_WIDTH) * apart;
  return isSmall && next.x <= one.x + one.width + apart - 1;
}

/** @param {Shape} one @param {Shape} next */
function join(one, next) {
  one.width = Math.max(one.width, next.x + next.width - one.x);
  one.count += next.count;
  one.milliseconds += next.milliseconds;
  one.isBad ||= next.isBad;
  one.isOpen ||= next.isOpen;
  one.output = null;
}
