// The means to go through a log as through a recording: a slider over its events, step by step, or playing as fast as
// it happened, four times as fast, or as fast as can be. Nothing is asked for while it plays.

import { pace, SILENCE_MILLISECONDS } from "../model/pace.js";
import { button, h, say } from "./dom.js";
import { duration, number } from "./format.js";

/** @typedef {import("../model/recording.js").LogEvent} LogEvent */
/** @typedef {import("../model/pace.js").Pace} Pace */
/** @typedef {import("../model/pace.js").Speed} Speed */

/** @type {[Speed, string][]} */
const SPEEDS = [
  [1, "1 ×"],
  [4, "4 ×"],
  ["max", "Max"],
];

/**
 * @param {(shown: number, how: "person" | "playing") => void} go so many events are to be shown
 */
export function scrubber(go) {
  let events = /** @type {LogEvent[]} */ ([]);
  let shown = 0;
  let speed = /** @type {Speed} */ (1);
  let playing = /** @type {{pace: Pace, at: number, frame: number} | null} */ (null);

  const slider = h("input", { type: "range", min: "1", max: "1", value: "1", "aria-label": "Events shown" });
  const play = button("Play", () => (playing ? stop() : start()), { class: "primary" });
  const speeds = SPEEDS.map(([each, text]) => ({ speed: each, element: button(text, () => choose(each)) }));
  const skips = h("input", { type: "checkbox" });
  const silence = h("span", { class: "silence" });
  const silenceText = h("span", { class: "quiet-text" });
  const where = h("span", { class: "mono scrubber-place" });
  const step = (/** @type {number} */ by) => () => byHand(shown + by);
  silence.append(
    silenceText,
    button("Skip it", () => playing?.pace.skip()),
  );
  const element = h(
    "section",
    { class: "card scrubber", "aria-label": "Replay" },
    slider,
    h(
      "div",
      { class: "row" },
      play,
      button("«", () => byHand(1), { "aria-label": "To the beginning" }),
      button("‹", step(-1), { "aria-label": "One event back" }),
      button("›", step(1), { "aria-label": "One event on" }),
      button("»", () => byHand(events.length), { "aria-label": "To the end" }),
      h("span", { class: "row", role: "group", "aria-label": "Speed" }, ...speeds.map((each) => each.element)),
      h("label", { class: "inline" }, skips, "Skip silence"),
      silence,
      where,
    ),
  );

  function start() {
    if (!events.length) return;
    if (shown >= events.length) go(1, "playing");
    playing = { pace: pace(events, shown, () => skips.checked), at: performance.now(), frame: 0 };
    playing.frame = requestAnimationFrame(look);
    show();
  }

  function stop() {
    if (playing) cancelAnimationFrame(playing.frame);
    playing = null;
    show();
    go(shown, "person");
  }

  /** @param {number} now */
  function look(now) {
    if (!playing) return;
    const next = playing.pace.advance(Math.max(0, now - playing.at), speed);
    playing.at = now;
    if (next !== shown) go(next, "playing");
    if (!playing) return;
    if (shown >= events.length) return stop();
    showSilence();
    playing.frame = requestAnimationFrame(look);
  }

  function showSilence() {
    const left = playing && speed !== "max" ? playing.pace.silence() / speed : 0;
    silence.hidden = left < SILENCE_MILLISECONDS / 2;
    if (!silence.hidden) say(silenceText, `Silence: ${Math.ceil(left / 1000)} s`);
  }

  /** @param {number} next */
  function byHand(next) {
    if (playing) stop();
    go(Math.max(1, Math.min(events.length, next)), "person");
  }

  /** @param {Speed} next */
  function choose(next) {
    speed = next;
    show();
  }

  function show() {
    for (const each of speeds) each.element.setAttribute("aria-pressed", String(each.speed === speed));
    say(play, playing ? "Pause" : "Play");
    const event = events[shown - 1];
    const time = event ? duration(event.position.ms - events[0].position.ms) : "–";
    const [n, last] = [event?.position.n ?? 0, events[events.length - 1]?.position.n ?? 0];
    const text = `event ${number(n)} of ${number(last)}, ${time}`;
    say(where, text);
    slider.max = String(Math.max(1, events.length));
    slider.value = String(shown);
    slider.setAttribute("aria-valuetext", text);
    showSilence();
  }

  slider.addEventListener("input", () => byHand(Number(slider.value)));
  show();
  return {
    element,
    isPlaying: () => playing !== null,
    /** @param {LogEvent[]} all @param {number} now how many of them are shown */
    update(all, now) {
      if (playing && all !== events) stop();
      [events, shown] = [all, now];
      show();
    },
    stop() {
      if (playing) stop();
    },
    close() {
      if (playing) cancelAnimationFrame(playing.frame);
      playing = null;
    },
  };
}
