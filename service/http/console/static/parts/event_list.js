// The events of a log as a list, with what is chosen of it: buttons for families of types, a field for a text.

import { ALL, filtering } from "../model/filtering.js";
import { FAMILIES, familyOf, summaryOf } from "../model/summary.js";
import { h, say } from "./dom.js";
import { counted, duration, number, reveal, size } from "./format.js";
import { virtualList } from "./virtual_list.js";

/** @typedef {import("../model/recording.js").Recording} Recording */
/** @typedef {import("../model/summary.js").Family} Family */

const STRETCH = 4000; // events that are looked through at once
const LONG_MILLISECONDS = 1000;

/**
 * @param {{choose(place: number): void, open(place: number): void}} does
 */
export function eventList(does) {
  let recording = /** @type {Recording | null} */ (null);
  let filter = filtering([]);
  let missing = /** @type {Map<number, number>} */ (new Map());
  let place = -1;
  let frame = 0;
  const without = /** @type {Set<Family>} */ (new Set());

  const list = virtualList({
    label: "Events",
    make: () => rowElement(),
    show: (element, row) => showRow(element, filter.place(row)),
    choose: (row) => does.choose(filter.place(row)),
    open: (row) => does.open(filter.place(row)),
  });
  const text = h("input", { type: "search", placeholder: "Text or type", "aria-label": "Filter events by a text" });
  const told = h("span", { class: "quiet-text", role: "status" });
  const families = FAMILIES.map((family) => familyButton(family, () => turn(family)));
  const element = h(
    "section",
    { class: "events", "aria-label": "Events" },
    h("div", { class: "row event-filter" }, ...families.map((each) => each.element), text, told),
    list.element,
  );

  /** @param {Family} family */
  function turn(family) {
    if (!without.delete(family)) without.add(family);
    choose();
  }

  function choose() {
    for (const each of families) each.element.setAttribute("aria-pressed", String(!without.has(each.family)));
    filter.choose({ without, text: text.value });
    advance(true);
  }

  /** Look a stretch further, and on in the next frame. @param {boolean} [isAnew] whether others were chosen */
  function advance(isAnew = false) {
    cancelAnimationFrame(frame);
    frame = 0;
    const isAll = filter.advance(STRETCH);
    const counts = filter.counts();
    for (const each of families) each.show(counts[each.family]);
    list.update(filter.length(), filter.row(place));
    if (isAnew) list.reveal(Math.max(0, filter.row(place)));
    const total = recording?.events.length ?? 0;
    say(told, filter.length() === total ? counted(total, "event") : `${number(filter.length())} of ${number(total)}`);
    if (!isAll) frame = requestAnimationFrame(() => advance(isAnew));
  }

  /** @param {HTMLElement} element @param {number} at */
  function showRow(element, at) {
    const event = recording?.events[at];
    if (!event || !recording) return;
    const first = recording.events[0].position.ms;
    const since = at ? event.position.ms - recording.events[at - 1].position.ms : 0;
    const lost = missing.get(at);
    const [n, time, gap, type, summary, bytes] = /** @type {Element[]} */ ([...element.children]);
    say(n, number(event.position.n));
    say(time, seconds(event.position.ms - first));
    say(gap, lost !== undefined ? lostText(lost) : since > LONG_MILLISECONDS ? `+ ${duration(since)}` : "");
    say(type, event.chunk.type);
    say(summary, reveal(summaryOf(event.chunk)).replaceAll("\n", " ⏎ "));
    say(bytes, size(event.bytes));
    element.dataset.family = familyOf(event.chunk.type);
    element.dataset.missing = String(lost !== undefined);
    element.dataset.future = String(at > place);
  }

  text.addEventListener("input", choose);
  return {
    element,
    /** Show this one from now on. @param {Recording} next */
    use(next) {
      recording = next;
      filter = filtering(next.events);
      choose();
    },
    /** Its events, or what is chosen of them, are others. @param {number} chosen the place that is shown */
    update(chosen) {
      const isMoved = chosen !== place;
      place = chosen;
      missing = new Map(recording?.missing.map((each) => [each.place, each.lost]));
      advance();
      if (isMoved) list.reveal(Math.max(0, filter.row(place)));
    },
    close() {
      cancelAnimationFrame(frame);
      list.close();
    },
    reset() {
      without.clear();
      text.value = ALL.text;
      choose();
    },
  };
}

/** @param {number} lost */
function lostText(lost) {
  return lost ? `${counted(lost, "event is", "events are")} missing` : "events are missing";
}

/** @param {number} milliseconds */
function seconds(milliseconds) {
  return milliseconds < 60_000 ? `${(milliseconds / 1000).toFixed(3)} s` : duration(milliseconds);
}

function rowElement() {
  const cells = ["n", "time", "gap", "type", "summary", "size"];
  return h("div", { class: "event-row" }, ...cells.map((cell) => h("span", { class: `event-${cell}` })));
}

/** @param {Family} family @param {() => void} press */
function familyButton(family, press) {
  const count = h("span", { class: "count" }, "0");
  const element = h("button", { type: "button", "data-family": family, "aria-pressed": "true" }, family, " ", count);
  element.addEventListener("click", press);
  return {
    family,
    element,
    /** @param {number} events */
    show(events) {
      say(count, number(events));
      element.hidden = events === 0;
    },
  };
}
