// A log drawn to scale in time: lanes for attempts, steps, calls of the model and of tools, and waits; marks where
// something happened; the playhead. The same can be gone through with the keys, and read as a list of links.

import { drawn, drawnMarks, ticks, xOf } from "../model/drawing.js";
import { button, fill, h, say, svg } from "./dom.js";
import { counted, duration, number } from "./format.js";

/** @typedef {import("../model/spans.js").Span} Span */
/** @typedef {import("../model/spans.js").Mark} Mark */
/** @typedef {import("../model/drawing.js").Window} Window */
/** @typedef {import("../model/drawing.js").Shape} Shape */
/** @typedef {{list: Span[], marks: Mark[]}} Spans */

const GUTTER = 66; // for the lanes' names
const TOP = 22; // for marks
const ROW = 15;
const LANE_GAP = 5;
const AXIS = 20;
const MOST_LISTED = 200;
const LEAST_WINDOW = 20;

/**
 * @param {{choose(place: number): void, addressOf(place: number): string}} does
 */
export function timeline(does) {
  let spans = /** @type {Spans} */ ({ list: [], marks: [] });
  let all = /** @type {Window} */ ({ from: 0, to: 0 });
  let zoomed = /** @type {Window | null} */ (null);
  let now = { place: 0, ms: 0 };

  const picture = svg("svg", { class: "timeline-picture", role: "presentation" });
  const playhead = svg("line", { class: "timeline-playhead", y1: 0 });
  const told = h("p", { class: "visually-hidden", role: "status" });
  const links = h("ul", { class: "timeline-links" });
  const listed = h("details", null, h("summary", null, "As a list"), links);
  const hint = "Arrow keys go from span to span, plus and minus zoom, 0 fits.";
  const place = h(
    "div",
    { class: "timeline-place", tabindex: "0", role: "group", "aria-label": `Timeline. ${hint}`, onkeydown: onKey },
    picture,
  );
  const element = h(
    "section",
    { class: "card timeline", "aria-label": "Timeline" },
    h(
      "div",
      { class: "row spread" },
      h("h2", null, "Timeline"),
      h(
        "span",
        { class: "row" },
        button("−", () => zoom(2), { "aria-label": "Zoom out" }),
        button("+", () => zoom(0.5), { "aria-label": "Zoom in" }),
        button("Fit", fit),
      ),
    ),
    place,
    told,
    listed,
  );
  let room = 0; // kept: to ask for it would have the whole page laid out in between
  const resized = new ResizeObserver(() => {
    room = place.clientWidth;
    draw();
  });

  const width = () => Math.max(120, room - GUTTER - 8);
  const shownWindow = () => zoomed ?? all;

  function draw() {
    const window = shownWindow();
    const lanes = drawn(spans.list, window, width());
    let y = TOP;
    const parts = lanes.map(({ lane, rows, shapes }) => {
      const group = laneOf(lane, y, rows, shapes, width());
      y += rows * ROW + LANE_GAP;
      return group;
    });
    const marks = drawnMarks(spans.marks, window, width()).map(markOf);
    picture.setAttribute("height", String(y + AXIS));
    playhead.setAttribute("y2", String(y));
    fill(picture, axisOf(window, all.from, width(), y), ...parts, ...marks, playhead);
    movePlayhead();
    if (listed.open) list();
  }

  function movePlayhead() {
    const x = xOf(now.ms, shownWindow(), width());
    playhead.setAttribute("x1", String(GUTTER + x));
    playhead.setAttribute("x2", String(GUTTER + x));
    playhead.setAttribute("visibility", x >= 0 && x <= width() ? "visible" : "hidden");
  }

  /** @param {number} factor */
  function zoom(factor) {
    const { from, to } = shownWindow();
    const span = Math.max(LEAST_WINDOW, (to - from) * factor);
    if (span >= all.to - all.from) return fit();
    around(span);
    draw();
  }

  /** So much time, with the playhead in its middle where that is possible. @param {number} span */
  function around(span) {
    const from = Math.max(all.from, Math.min(all.to - span, now.ms - span / 2));
    zoomed = { from, to: from + span };
  }

  function fit() {
    zoomed = null;
    draw();
  }

  /** @param {KeyboardEvent} event */
  function onKey(event) {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key === "ArrowRight") step(1);
    else if (event.key === "ArrowLeft") step(-1);
    else if (event.key === "+") zoom(0.5);
    else if (event.key === "-") zoom(2);
    else if (event.key === "0") fit();
    else return;
    event.preventDefault();
  }

  /** To the next span, or the one before. @param {1 | -1} way */
  function step(way) {
    let best = /** @type {Span | Mark | null} */ (null);
    for (const each of [...spans.list, ...spans.marks]) {
      if ((each.place - now.place) * way > 0 && (!best || (best.place - each.place) * way > 0)) best = each;
    }
    if (!best) return;
    does.choose(best.place);
    say(told, best.label);
  }

  function list() {
    const { from, to } = shownWindow();
    const within = spans.list.filter((each) => each.begin <= to && (each.end ?? to) >= from);
    const items = within.slice(0, MOST_LISTED).map((each) => {
      const took = each.end === null ? "open" : duration(each.end - each.begin);
      const text = `${each.label}, ${took} ${howOf(each.ended)}`;
      return h("li", null, h("a", { href: does.addressOf(each.place) }, text));
    });
    const marked = spans.marks.filter(({ at }) => at >= from && at <= to);
    const marks = marked
      .slice(0, MOST_LISTED)
      .map((each) => h("li", null, h("a", { href: does.addressOf(each.place) }, `${each.kind}: ${each.label}`)));
    const left = within.length + marked.length - items.length - marks.length;
    fill(links, ...items, ...marks, left > 0 && h("li", null, `${number(left)} more: zoom in to see them.`));
  }

  picture.addEventListener("click", (event) => {
    const shape = /** @type {Element} */ (event.target).closest("[data-place]");
    if (shape) does.choose(Number(shape.getAttribute("data-place")));
  });
  listed.addEventListener("toggle", () => listed.open && list());
  resized.observe(place);
  return {
    element,
    /** What there is. @param {Spans} next @param {Window} window the whole of it */
    update(next, window) {
      [spans, all] = [next, window];
      draw();
    },
    /** The playhead stands at this event. @param {number} at its place @param {number} ms */
    point(at, ms) {
      now = { place: at, ms };
      if (zoomed && (ms < zoomed.from || ms > zoomed.to)) {
        around(zoomed.to - zoomed.from);
        draw();
      } else movePlayhead();
    },
    close: () => resized.disconnect(),
  };
}

/** @param {string} lane @param {number} y @param {number} rows @param {Shape[]} shapes @param {number} width */
function laneOf(lane, y, rows, shapes, width) {
  return svg(
    "g",
    { "data-lane": lane },
    svg("text", { x: 0, y: y + 11, class: "timeline-name" }, lane),
    svg("rect", { x: GUTTER, y, width, height: rows * ROW, class: "timeline-ground" }),
    ...shapes.map((shape) => spanOf(shape, y + shape.row * ROW)),
  );
}

/** @param {Shape} shape @param {number} y */
function spanOf(shape, y) {
  const bar = { y: y + 1, height: ROW - 2, rx: 2 };
  const part = shape.output === null ? 0 : shape.output - shape.x;
  return svg(
    "g",
    {
      class: "span",
      "data-kind": shape.kind,
      "data-bad": shape.isBad,
      "data-open": shape.isOpen,
      "data-place": shape.place,
    },
    svg("title", null, titleOf(shape)),
    svg("rect", { x: GUTTER + shape.x, width: shape.width, ...bar }),
    part > 0 && svg("rect", { x: GUTTER + shape.x, width: part, ...bar, class: "before-output" }),
  );
}

/** @param {Shape} shape */
function titleOf({ label, count, milliseconds, ended, isOpen }) {
  if (count > 1) return `${label} and ${counted(count - 1, "more")}, ${duration(milliseconds)} together`;
  return `${label}, ${duration(milliseconds)}${isOpen ? " so far" : ""} ${howOf(ended)}`;
}

/** @param {string} ended */
function howOf(ended) {
  return ended && ended !== "ended" ? `(${ended})` : "";
}

/** @param {ReturnType<typeof drawnMarks>[0]} mark */
function markOf({ kind, label, x, place, count }) {
  const at = GUTTER + x;
  return svg(
    "g",
    { class: "mark", "data-kind": kind, "data-place": place },
    svg("title", null, count > 1 ? `${label} and ${counted(count - 1, "more")}` : label),
    svg("path", { d: `M${at} ${TOP - 3} l-6 -12 h12 z` }),
  );
}

/** @param {Window} window @param {number} origin @param {number} width @param {number} y */
function axisOf(window, origin, width, y) {
  return svg(
    "g",
    { class: "timeline-axis" },
    ...ticks(window, origin, Math.max(2, Math.floor(width / 90))).map((ms) => {
      const x = GUTTER + xOf(ms, window, width);
      return svg(
        "g",
        null,
        svg("line", { x1: x, x2: x, y1: TOP, y2: y }),
        x < GUTTER + width - 36 && svg("text", { x: x + 2, y: y + 13 }, duration(ms - origin)),
      );
    }),
  );
}
