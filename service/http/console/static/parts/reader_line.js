// Where this page is in the log that it follows: connected or cut, at which position, after how many events; and the
// means to cut it, by hand or at random, and to come back.

import { button, h, say } from "./dom.js";
import { number } from "./format.js";

/** @typedef {import("../service/follow.js").Following} Following */

const EVENTS_BETWEEN_CUTS = [5, 45];
const CUT_MILLISECONDS = [10, 120];

/**
 * @param {{cut(): void, resume(): void}} does
 * @returns a line; `show` is told whenever anything has changed, `passed` of the events that came
 */
export function readerLine(does) {
  const badge = h("span", { class: "badge", role: "status" });
  const place = h("span", { class: "reader-facts mono" });
  const cutButton = button("Cut", does.cut, { title: "Drop the connection, as a lost network does" });
  const resumeButton = button("Resume", does.resume, { class: "primary" });
  const atRandom = h("input", { type: "checkbox" });
  const element = h(
    "div",
    { class: "reader-line", role: "group", "aria-label": "Connection" },
    badge,
    place,
    h("span", { class: "row reader-controls" }, cutButton, resumeButton),
    h("label", { class: "inline" }, atRandom, "Cut me at random"),
  );
  let eventsLeft = between(EVENTS_BETWEEN_CUTS);
  let timer = /** @type {ReturnType<typeof setTimeout> | undefined} */ (undefined);
  let isCutByHand = false;

  return {
    element,
    /** @param {Following | null} reader @param {boolean} isCut whether a person has cut it */
    show(reader, isCut) {
      isCutByHand = isCut;
      const state = isCut ? "cut" : (reader?.state() ?? "idle");
      badge.dataset.status = state;
      say(
        badge,
        state === "ended" ? "ended: all of it is here" : state === "cut" && !isCut ? "cut, coming back" : state,
      );
      say(place, reader ? factsOf(reader) : "");
      cutButton.disabled = isCut;
      resumeButton.hidden = !(state === "cut");
    },
    /** @param {number} events @param {Following} reader */
    passed(events, reader) {
      if (!atRandom.checked || reader.state() === "ended") return;
      eventsLeft -= events;
      if (eventsLeft > 0) return;
      eventsLeft = between(EVENTS_BETWEEN_CUTS);
      reader.cut();
      timer = setTimeout(() => isCutByHand || reader.resume(), between(CUT_MILLISECONDS));
    },
    close: () => clearTimeout(timer),
  };
}

/** @param {Following} reader */
function factsOf(reader) {
  const { ms, n } = reader.position();
  const reconnects = reader.reconnects();
  return `at ${ms}-${n} · ${number(reader.received())} received · ${number(reconnects)} reconnects`;
}

/** @param {number[]} bounds */
function between([least, most]) {
  return least + Math.random() * (most - least);
}
