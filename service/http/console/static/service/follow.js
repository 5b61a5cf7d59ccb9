// One reader's way through a log: from a position on, over one connection after another, to the terminal event. The
// reader is a position. What was given out is never given again; what does not join it is told as a gap, never passed
// over. A connection that breaks, falls silent or is answered with a 5xx is replaced, for as long as the page is open.
//
// `cut` drops the connection as a lost network does; `resume` comes back from where it was.

import { BEGINNING, parsePosition, positionText } from "../model/position.js";
import { credentialHeaders, refusal, urlOf } from "./api.js";
import { eventStream } from "./sse.js";

/** @typedef {import("../model/position.js").Position} Position */
/** @typedef {{position: Position, chunk: import("../model/fold.js").Chunk, bytes: number}} LogEvent */
/** @typedef {{requested: string, oldest: string, latest: string, lost: number}} Gap */
/**
 * "connecting": no connection yet; "catching up": what was stored comes; "live": what is stored has come; "cut": there
 * is no connection, and `resume` or, where `until` says when, time brings the next; "ended": the terminal event has
 * come; "refused": the service answers that there is nothing to follow here.
 * @typedef {"connecting" | "catching up" | "live" | "cut" | "ended" | "refused"} FollowState
 */
/**
 * @typedef {object} Following
 * @property {() => FollowState} state
 * @property {() => Position} position of the last event that was given out
 * @property {() => number} received events so far
 * @property {() => number} reconnects how many connections there were after the first
 * @property {() => number | null} until when the next connection is tried, in milliseconds since 1970
 * @property {() => Error | null} refusal
 * @property {() => void} cut
 * @property {(events: number) => void} cutAfter so many more were given out, at whatever place of what has arrived
 * @property {() => void} resume
 * @property {() => void} close nothing comes any more
 */
/**
 * @typedef {object} Listener
 * @property {(events: LogEvent[]) => void} events they come in their order, some at a time
 * @property {() => void} [changed] anything but the events is different
 * @property {(gap: Gap) => void} [gap] something is missing in front of the next event
 */

const SILENCE_MILLISECONDS = 45_000; // the service's third heartbeat
const FIRST_PAUSE_MILLISECONDS = 500;
const LONGEST_PAUSE_MILLISECONDS = 15_000;
const CAUGHT_UP_MILLISECONDS = 120; // nothing more has come for so long: what was stored is here
const NOTHING_STORED_MILLISECONDS = 1000; // the service says nothing before it has something to say
const BREATH_MILLISECONDS = 8; // of work; then the page is drawn
const PIECE_BYTES = 16 * 1024; // of what has arrived, a megabyte perhaps: nothing looks at the time within one

/**
 * Follow a task's log behind `after`.
 * @param {string} taskId
 * @param {Listener} listener
 * @param {Position} [after]
 * @returns {Following}
 */
export function follow(taskId, listener, after = BEGINNING) {
  let cursor = after;
  let state = /** @type {FollowState} */ ("connecting");
  let received = 0;
  let connections = 0;
  let failures = 0;
  let firstPause = FIRST_PAUSE_MILLISECONDS;
  let until = /** @type {number | null} */ (null);
  let refused = /** @type {Error | null} */ (null);
  let gapIsTold = false;
  let left = Infinity;
  let connection = new AbortController();
  let timer = /** @type {ReturnType<typeof setTimeout> | undefined} */ (undefined);
  let quiet = /** @type {ReturnType<typeof setTimeout> | undefined} */ (undefined);

  /** @param {FollowState} next */
  function become(next) {
    if (state === next) return;
    state = next;
    listener.changed?.();
  }

  const isOver = () => state === "ended" || state === "refused";

  async function connect() {
    const mine = (connection = new AbortController());
    until = null;
    connections += 1;
    become("connecting");
    try {
      await readAll(mine);
      if (connection === mine) later();
    } catch (error) {
      if (connection === mine && !isOver()) later();
    } finally {
      mine.abort();
      if (connection === mine) clearTimeout(quiet);
    }
  }

  /** @param {AbortController} mine */
  async function readAll(mine) {
    const silence = silenceOf(mine);
    /** @type {Record<string, string>} */
    const headers = cursor.n === 0 && cursor.ms === 0 ? {} : { "Last-Event-ID": positionText(cursor) };
    const response = await fetch(urlOf(`/tasks/${encodeURIComponent(taskId)}/stream`), {
      headers: { ...credentialHeaders(), ...headers },
      signal: mine.signal,
      cache: "no-store",
      redirect: "error",
    });
    if (response.status === 204) return become("ended");
    if (response.status >= 500 || response.status === 429) throw new Error("not now");
    if (!response.ok || !response.body) {
      refused = await refusal(response);
      return become("refused");
    }
    const opened = Date.parse(response.headers.get("Date") ?? "");
    become("catching up");
    const stream = eventStream();
    const reader = response.body.getReader();
    let patience = NOTHING_STORED_MILLISECONDS;
    for (let begun = performance.now(); ;) {
      quiet = setTimeout(caughtUp, patience);
      const { done, value } = await reader.read();
      if (done || connection !== mine) return;
      clearTimeout(quiet);
      patience = CAUGHT_UP_MILLISECONDS;
      silence.heard();
      for (const piece of pieces(value)) {
        give(stream.feed(piece), opened);
        if (isOver() || connection !== mine) return;
        if (performance.now() - begun < BREATH_MILLISECONDS) continue;
        await breath();
        if (connection !== mine) return;
        begun = performance.now();
      }
    }
  }

  /**
   * Give out what is new. What was written since the connection was opened, by the service's clock, is live.
   * @param {Iterable<import("./sse.js").Item>} items
   * @param {number} opened in milliseconds since 1970; NaN where the service does not say
   */
  function give(items, opened) {
    const events = /** @type {LogEvent[]} */ ([]);
    const flush = () => events.length && deliver(events.splice(0), opened);
    let isBeating = false; // the service does so while it has nothing to say
    try {
      for (const item of items) {
        failures = 0;
        isBeating = item.kind === "comment";
        if (item.kind === "retry") firstPause = Math.min(item.milliseconds, LONGEST_PAUSE_MILLISECONDS);
        const event = item.kind === "frame" ? joined(item, flush) : null;
        if (event && events.push(event) >= left) break;
      }
    } finally {
      flush();
      if (isBeating) caughtUp();
    }
  }

  /** @param {LogEvent[]} events @param {number} opened */
  function deliver(events, opened) {
    received += events.length;
    left -= events.length;
    tell(() => listener.events(events));
    const last = events[events.length - 1];
    if (last.chunk.type === "finish") become("ended");
    else if (last.position.ms >= opened && state === "catching up") caughtUp();
    else listener.changed?.();
    if (left <= 0) cut();
  }

  function cut() {
    if (isOver()) return;
    drop();
    become("cut");
  }

  function caughtUp() {
    if (state === "catching up") become("live");
  }

  /**
   * The event, where it is new.
   * @param {import("./sse.js").Frame} frame
   * @param {() => unknown} flush gives out what stands before it; done before a gap is told
   * @returns {LogEvent | null}
   */
  function joined(frame, flush) {
    const position = frame.id === null ? null : parsePosition(frame.id);
    if (position === null) return heed(frame.data, flush);
    if (position.n <= cursor.n && position.ms <= cursor.ms) return null;
    if (!gapIsTold && (position.n !== cursor.n + 1 || position.ms < cursor.ms)) {
      const [requested, latest] = [positionText(cursor), positionText(position)];
      const gap = { requested, oldest: latest, latest, lost: Math.max(0, position.n - cursor.n - 1) };
      flush();
      tell(() => listener.gap?.(gap));
    }
    const chunk = JSON.parse(frame.data);
    gapIsTold = false;
    cursor = position;
    return { position, chunk, bytes: frame.data.length };
  }

  /** What the service itself says, beside the log. @param {string} data @param {() => unknown} flush @returns {null} */
  function heed(data, flush) {
    if (data === "[DONE]") {
      flush();
      become("ended"); // who begins behind the terminal event is not given it
      return null;
    }
    const chunk = JSON.parse(data);
    if (chunk.type === "data-gap") {
      gapIsTold = true;
      flush();
      tell(() => listener.gap?.(chunk.data));
    }
    return null;
  }

  function later() {
    if (isOver()) return;
    const grown = Math.min(firstPause * 2 ** Math.min(failures, 10), LONGEST_PAUSE_MILLISECONDS);
    const pause = grown * (0.5 + Math.random() / 2);
    failures += 1;
    until = Date.now() + pause;
    timer = setTimeout(connect, pause);
    become("cut");
  }

  function drop() {
    clearTimeout(timer);
    clearTimeout(quiet);
    const dropped = connection;
    connection = new AbortController();
    dropped.abort();
    until = null;
    left = Infinity;
  }

  connect();
  return {
    state: () => state,
    position: () => cursor,
    received: () => received,
    reconnects: () => Math.max(0, connections - 1),
    until: () => until,
    refusal: () => refused,
    cut,
    cutAfter(events) {
      left = events;
    },
    resume() {
      if (state !== "cut") return;
      drop();
      failures = 0;
      connect();
    },
    close() {
      drop();
    },
  };
}

/** What goes wrong with who listens is no fault of the connection's. @param {() => void} telling */
function tell(telling) {
  try {
    telling();
  } catch (error) {
    reportError(error);
  }
}

/** Gives a connection up on which nothing comes. @param {AbortController} connection */
function silenceOf(connection) {
  let timer = setTimeout(() => connection.abort(), SILENCE_MILLISECONDS);
  connection.signal.addEventListener("abort", () => clearTimeout(timer));
  return {
    heard() {
      clearTimeout(timer);
      timer = setTimeout(() => connection.abort(), SILENCE_MILLISECONDS);
    },
  };
}

/** @param {Uint8Array} bytes */
function* pieces(bytes) {
  for (let begin = 0; begin < bytes.length; begin += PIECE_BYTES) yield bytes.subarray(begin, begin + PIECE_BYTES);
}

/** Let the page be drawn. */
function breath() {
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      resolve(undefined);
    };
    port2.postMessage(null);
  });
}
