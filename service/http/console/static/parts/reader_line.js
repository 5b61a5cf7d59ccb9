// Where this page is in the log that it follows: connected or cut, at which position, after how many events; and the
// means to cut it, by hand or at random, and to come back.

import { button, h, say } from "./dom.js";
import { counted, number } from "./format.js";

/** @typedef {import("../service/follow.js").Following} Following */

const EVENTS_BETWEEN_CUTS = [5, 45];
const CUT_MILLISECONDS = [10, 120];
const MEANWHILE = " · what comes meanwhile is there after Resume";

/** @param {{cut(): void, resume(): void}} does */
export function readerLine(does) {
  const badge = h("span", { class: "badge", role: "status" });
  const place = h("span", { class: "reader-facts mono" });
  const cutButton = button("Cut", does.cut, { title: "Drop the connection, as a lost network does" });
  const resumeButton = button("Resume", does.resume, { class: "primary" });
  const chance = cutsAtRandom();
  const element = h(
    "div",
    { class: "reader-line", role: "group", "aria-label": "Connection" },
    badge,
    place,
    h("span", { class: "row reader-controls" }, cutButton, resumeButton),
    chance.element,
  );

  return {
    element,
    /**
     * To be told whenever anything has changed.
     * @param {Following | null} reader
     * @param {boolean} isCut whether a person has cut it
     */
    show(reader, isCut) {
      const state = isCut ? "cut" : (reader?.state() ?? "idle");
      badge.dataset.status = state;
      say(badge, stateText(state, isCut));
      say(place, reader ? factsOf(reader) + (isCut ? MEANWHILE : "") : "");
      const held = document.activeElement;
      cutButton.disabled = isCut;
      resumeButton.hidden = state !== "cut";
      if (held === cutButton && isCut) resumeButton.focus();
      if (held === resumeButton && resumeButton.hidden) cutButton.focus();
      chance.look(isCut ? null : reader);
    },
    close: chance.close,
  };
}

/** @param {string} state @param {boolean} isCut */
function stateText(state, isCut) {
  if (state === "ended") return "ended: all of it is here";
  return state === "cut" && !isCut ? "cut, coming back" : state;
}

/** A switch: while it is on, the reader is cut after some events, and comes back a moment later. */
function cutsAtRandom() {
  const isOn = h("input", { type: "checkbox", onchange: () => look(reader) });
  let reader = /** @type {Following | null} */ (null);
  let armed = /** @type {Following | null} */ (null);
  let timer = /** @type {ReturnType<typeof setTimeout> | undefined} */ (undefined);

  /** @param {Following | null} next the one that is to be connected */
  function look(next) {
    reader = next;
    const wanted = isOn.checked ? reader : null;
    if (armed !== wanted) {
      armed?.cutAfter(Infinity);
      if (armed === reader) armed?.resume(); // it was switched off in the middle of a cut
      armed = wanted;
      armed?.cutAfter(between(EVENTS_BETWEEN_CUTS));
    }
    if (armed?.state() !== "cut" || armed.until() !== null) forget();
    else timer ??= setTimeout(comeBack, between(CUT_MILLISECONDS));
  }

  function comeBack() {
    forget();
    armed?.resume();
    armed?.cutAfter(between(EVENTS_BETWEEN_CUTS));
  }

  function forget() {
    clearTimeout(timer);
    timer = undefined;
  }

  return {
    element: h("label", { class: "inline" }, isOn, "Cut me at random"),
    look,
    close: forget,
  };
}

/** @param {Following} reader */
function factsOf(reader) {
  const { ms, n } = reader.position();
  const reconnects = reader.reconnects();
  return `at ${ms}-${n} · ${number(reader.received())} received · ${counted(reconnects, "reconnect")}`;
}

/** @param {number[]} bounds */
function between([least, most]) {
  return Math.round(least + Math.random() * (most - least));
}
