// A task's log: its head, the log as a timeline, as a recording to go through, and as a list of its events. It is read
// from the beginning and followed while it is written. One event is the present one: the list and the address name it,
// the playhead stands there, and the message is shown as it was then; at the end it stays at the end.

import { parsePosition, positionText } from "../model/position.js";
import { LIMITS, recording } from "../model/recording.js";
import { spans } from "../model/spans.js";
import { Refused } from "../service/api.js";
import { follow } from "../service/follow.js";
import { polling } from "../service/polling.js";
import { whileSeen } from "../service/seen.js";
import { fill, h, say } from "../parts/dom.js";
import { eventDetail } from "../parts/event_detail.js";
import { eventList } from "../parts/event_list.js";
import { shortId } from "../parts/format.js";
import { logHead } from "../parts/log_head.js";
import { logNotice } from "../parts/log_notice.js";
import { messageThen } from "../parts/message_then.js";
import { readerLine } from "../parts/reader_line.js";
import { scrubber } from "../parts/scrubber.js";
import { timeline } from "../parts/timeline.js";

/** @typedef {import("../parts/view.js").Address} Address */
/** @typedef {import("../model/position.js").Position} Position */

const LOOK_MILLISECONDS = 3000;
const DRAW_MILLISECONDS = 700; // between two drawings of what comes in
const ADDRESS_MILLISECONDS = 300;

/** @param {Address} address @returns {import("../parts/view.js").View} */
export function logView(address) {
  const taskId = address.names[0];
  const addressOf = (/** @type {string} */ at) => `#/tasks/${encodeURIComponent(taskId)}?at=${at}`;
  let wanted = parsePosition(address.query.get("at") ?? ""); // until it is gone to
  let absent = /** @type {Position | null} */ (null);
  let isBegunWithin = wanted !== null && wanted.n > LIMITS.events;
  const begin = isBegunWithin && wanted ? inFrontOf(wanted) : undefined;
  let isTried = isBegunWithin; // the wanted event was asked for by its position
  let kept = recording(undefined, begin && begin.n + 1);
  let stretches = spans(begin && begin.n + 1);
  let shown = 0;
  let isAtEnd = wanted === null;
  let isCut = false;
  let isClosed = false;
  let arrived = performance.now();
  let drawnAt = 0;
  let frame = 0;
  let addressTimer = /** @type {ReturnType<typeof setTimeout> | undefined} */ (undefined);

  const reader = readerLine({ cut: () => cut(true), resume: () => cut(false) });
  const head = logHead(taskId, addressOf, reader.element);
  const notice = logNotice({ goOn, readAll: () => readToEnd() });
  const problem = h("p", { class: "problem", role: "alert" });
  const unseen = whileSeen(() => (isCut || isFull ? null : following));
  const drawing = timeline({
    choose: choose,
    addressOf: (place) => addressOf(positionText(kept.events[place].position)),
  });
  const replay = scrubber((next, how) => go(next, how === "playing"));
  const list = eventList({ choose, open: (place) => (choose(place), detail.focus()) });
  const detail = eventDetail(addressOf);
  const message = messageThen();
  const body = h(
    "div",
    { class: "log-body" },
    list.element,
    h("div", { class: "stack log-side" }, message.element, detail.element),
  );
  const element = h(
    "div",
    { class: "view log" },
    head.element,
    problem,
    notice.element,
    drawing.element,
    replay.element,
    body,
  );

  // --- what comes in ---

  function read(/** @type {Position | undefined} */ after) {
    return follow(taskId, { events: take, changed: () => later() }, after);
  }

  /** @param {import("../model/recording.js").LogEvent[]} events */
  function take(events) {
    const first = kept.events.length;
    kept.add(events);
    for (let place = first; place < kept.events.length; place++) stretches.add(kept.events[place], place);
    arrived = performance.now();
    if (kept.isFull() && kept.events[kept.events.length - 1].chunk.type !== "finish") {
      following.close();
      isFull = true;
    }
    later();
  }

  /** Drop what is before, and go on. */
  function goOn() {
    readToEnd(kept.events[kept.events.length - 1].position, kept.foldAt(kept.events.length));
  }

  /** @param {Position} [after] @param {import("../model/fold.js").Fold} [before] */
  function readToEnd(after, before) {
    readAnew(after, before);
    wanted = absent = null;
    isAtEnd = true;
  }

  /** @param {Position} [after] @param {import("../model/fold.js").Fold} [before] the message there */
  function readAnew(after, before) {
    following.close();
    replay.stop();
    kept = recording(before, after && after.n + 1);
    stretches = spans(after && after.n + 1);
    isFull = isCut = false;
    isBegunWithin = after !== undefined;
    shown = 0;
    list.use(kept);
    following = read(after);
    later();
  }

  /** @param {boolean} byHand */
  function cut(byHand) {
    isCut = byHand;
    if (byHand) following.cut();
    else following.resume();
    later();
  }

  // --- what is shown ---

  function later() {
    if (isClosed) return;
    frame ||= requestAnimationFrame(show);
  }

  function show() {
    frame = 0;
    const isDue = performance.now() - drawnAt >= DRAW_MILLISECONDS || following.state() !== "catching up";
    if (!isDue) return later();
    drawnAt = performance.now();
    look();
    if (isAtEnd && !replay.isPlaying()) shown = kept.events.length;
    tell();
    reader.show(isFull ? null : following, isCut);
    head.show(kept.foldAt(kept.events.length), kept.bytes(), kept.events.length);
    drawing.update(stretches, wholeWindow());
    present();
  }

  /** Go where the address says, as soon as it is there; to the end where there is no such event, or not yet. */
  function look() {
    if (!wanted) return;
    const place = kept.placeOf(wanted);
    const last = kept.events[kept.events.length - 1]?.position.n ?? 0;
    const state = isFull ? "full" : following.state(); // what is not kept may have had the end
    if (place >= 0) {
      [shown, isAtEnd, wanted] = [place + 1, false, null];
    } else if (state === "ended" || last >= wanted.n) {
      [absent, wanted, isAtEnd] = [wanted, null, true];
      if (isBegunWithin) readAnew();
    } else if (isBegunWithin && (last || state === "live" || state === "refused")) {
      readAnew(); // it would have been the first to come
    } else if (state === "full" && !isTried) {
      isTried = true;
      readAnew(inFrontOf(wanted));
    } else if (state === "full" || state === "live") isAtEnd = true;
  }

  function tell() {
    notice.show({
      events: kept.events,
      isBegunWithin,
      isFull,
      awaited: isAtEnd ? wanted : null,
      absent,
      refusal: following.refusal()?.message ?? "",
    });
  }

  function wholeWindow() {
    const [first, last] = [kept.events[0], kept.events[kept.events.length - 1]];
    if (!first) return { from: 0, to: 1 };
    const isWritten = !isFull && following.state() !== "ended";
    return { from: first.position.ms, to: last.position.ms + (isWritten ? performance.now() - arrived : 0) };
  }

  /** What belongs to the present event. */
  function present() {
    const event = kept.events[shown - 1] ?? null;
    replay.update(kept.events, shown);
    list.update(shown - 1);
    if (event) drawing.point(shown - 1, event.position.ms);
    if (!replay.isPlaying()) detail.show(event);
    const isMoreComing = isAtEnd && following.state() === "catching up" && !isFull;
    if (!isMoreComing) message.update(kept, shown); // it would be another one at once
  }

  /** @param {number} next how many events are shown @param {boolean} [isPlaying] */
  function go(next, isPlaying = false) {
    shown = next;
    isAtEnd = !isPlaying && shown === kept.events.length;
    wanted = absent = null;
    tell();
    present();
    clearTimeout(addressTimer);
    if (!isPlaying) addressTimer = setTimeout(nameIt, ADDRESS_MILLISECONDS);
  }

  /** @param {number} place */
  function choose(place) {
    replay.stop();
    go(place + 1);
  }

  function nameIt() {
    const event = kept.events[shown - 1];
    if (event) history.replaceState(null, "", addressOf(positionText(event.position)));
  }

  /** @param {Error | null} error */
  function failed(error) {
    const isGone = error instanceof Refused && error.status === 404;
    if (isGone) {
      close();
      fill(element, h("h1", null, "Log"), h("p", { class: "empty" }, "There is no such task."));
    } else say(problem, error?.message ?? "");
  }

  function close() {
    isClosed = true;
    following.close();
    unseen();
    asking.stop();
    clearInterval(ticking);
    clearTimeout(addressTimer);
    cancelAnimationFrame(frame);
    for (const part of [head, reader, drawing, replay, list, message]) part.close();
  }

  let isFull = false;
  let following = read(begin);
  const asking = polling(
    LOOK_MILLISECONDS,
    async (signal) => {
      if (!head.isEnded()) await head.ask(signal);
      later();
    },
    failed,
  );
  const ticking = setInterval(() => following.state() === "live" && later(), 1000);
  list.use(kept);
  show();
  return {
    element,
    title: `Task ${shortId(taskId)}`,
    close,
    go(next) {
      if (next.names[0] !== taskId || isClosed) return false;
      const at = parsePosition(next.query.get("at") ?? "");
      if (!at || (isBegunWithin && kept.placeOf(at) < 0)) return false;
      replay.stop();
      clearTimeout(addressTimer); // this one is named already
      [wanted, absent, isTried, isAtEnd] = [at, null, false, false];
      later();
      return true;
    },
  };
}

/** A position from which on this one is read first, whether or not there is an event. @param {Position} position */
function inFrontOf({ ms, n }) {
  return { ms, n: n - 1 };
}
