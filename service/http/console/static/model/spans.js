// A log as stretches of time: which worker had the task, its steps, the calls of the model and of tools, what was
// waited for; and the moments at which something happened that a reader wants to find. Derived event by event; times
// are the events' own, in milliseconds.

import { SILENCE_MILLISECONDS } from "./pace.js";

/** @typedef {import("./fold.js").Chunk} Chunk */
/** @typedef {"attempts" | "steps" | "model" | "tools" | "waits"} Lane */
/**
 * `end` is null while it lasts. `output` is when the first piece of it came, where that is later than its beginning.
 * @typedef {object} Span
 * @property {Lane} lane
 * @property {string} kind
 * @property {string} label
 * @property {number} begin
 * @property {number | null} end
 * @property {number | null} output
 * @property {number} place of its first event
 * @property {string} ended how; "" while it lasts
 */
/** @typedef {{kind: string, label: string, at: number, place: number}} Mark */
/** @typedef {{position: {ms: number, n: number}, chunk: Chunk}} Event */

/** @type {readonly Lane[]} */
export const LANES = ["attempts", "steps", "model", "tools", "waits"];

const WAITS = new Set(["silence", "approval", "operation", "retry"]);

/**
 * @typedef {object} Spans
 * @property {Span[]} list
 * @property {Mark[]} marks
 * @property {(event: Event, place: number) => void} add the next event
 */

/** @param {number} [first] the number of the event that comes first @returns {Spans} */
export function spans(first = 1) {
  const list = /** @type {Span[]} */ ([]);
  const marks = /** @type {Mark[]} */ ([]);
  const open = /** @type {Map<string, Span>} */ (new Map()); // by what ends them
  const names = /** @type {Map<string, string>} */ (new Map()); // of tools, by their calls
  let attempts = 0;
  let steps = 0;
  let last = /** @type {number | null} */ (null);
  let next = first;
  let ms = 0;
  let place = 0;

  /** @param {string} key @param {Lane} lane @param {string} kind @param {string} label */
  function begin(key, lane, kind, label) {
    end(key, "");
    const span = { lane, kind, label, begin: ms, end: null, output: null, place, ended: "" };
    list.push(span);
    open.set(key, span);
  }

  /** @param {string} key @param {string} how */
  function end(key, how) {
    const span = open.get(key);
    if (!span) return;
    span.end = ms;
    span.ended = how;
    open.delete(key);
  }

  /** @param {string} kind @param {string} label */
  function mark(kind, label) {
    marks.push({ kind, label, at: ms, place });
  }

  /** @param {number} n */
  function noticeMissing(n) {
    if (n !== next) {
      mark("missing", n > next ? `${n - next} events are missing` : "events are missing");
      last = null; // what happened meanwhile is not known to be silence
    }
    next = n + 1;
  }

  function noticeSilence() {
    if (last === null || ms - last <= SILENCE_MILLISECONDS) return;
    const isExplained = [...open.values()].some((span) => span.lane === "tools" || WAITS.has(span.kind));
    if (isExplained) return;
    const how = "ended";
    list.push({
      lane: "waits",
      kind: "silence",
      label: "silence",
      begin: last,
      end: ms,
      output: null,
      place,
      ended: how,
    });
  }

  /** @type {Record<string, (chunk: Chunk) => void>} */
  const HEEDED = {
    "data-attempt": ({ data }) => {
      attempts += 1;
      if (attempts > 1) mark("take-over", `another worker takes over, epoch ${data.epoch}`);
      begin("attempt", "attempts", "attempt", `attempt ${attempts}, epoch ${data.epoch}`);
    },
    "start-step": () => {
      steps += 1;
      begin("step", "steps", "step", `step ${steps}`);
      begin("call", "model", "call", "model call");
    },
    "reset-step": () => {
      end("call", "done again");
      for (const [key, span] of open) if (span.lane === "tools") end(key, "done again");
      mark("reset", "the open step is done again");
      begin("call", "model", "call", "model call");
    },
    "finish-step": () => {
      end("call", "ended");
      end("step", "ended");
    },
    "message-metadata": ({ messageMetadata }) => {
      const { usage } = messageMetadata;
      end("call", usage ? `${usage.inputTokens} + ${usage.outputTokens} tokens` : "failed");
    },
    "data-retry": ({ data }) => {
      end("call", data.errorType);
      begin("retry", "waits", "retry", `${data.errorType}: waits ${data.waitSeconds} s for try ${data.attempt}`);
    },
    "tool-input-start": (chunk) => names.set(chunk.toolCallId, chunk.toolName),
    "tool-input-available": ({ toolCallId, toolName }) => begin(`tool ${toolCallId}`, "tools", "tool", toolName),
    "tool-input-error": ({ toolCallId, toolName }) => {
      begin(`tool ${toolCallId}`, "tools", "tool", toolName);
      end(`tool ${toolCallId}`, "error");
    },
    "tool-output-available": (chunk) =>
      end(`tool ${chunk.toolCallId}`, chunk.preliminary ? "goes on outside" : "ended"),
    "tool-output-error": (chunk) => end(`tool ${chunk.toolCallId}`, "error"),
    "tool-output-denied": (chunk) => end(`tool ${chunk.toolCallId}`, "denied"),
    "tool-approval-request": ({ approvalId }) => begin(`approval ${approvalId}`, "waits", "approval", "approval"),
    "tool-approval-response": ({ approvalId, approved }) =>
      end(`approval ${approvalId}`, approved ? "approved" : "denied"),
    "data-operation": ({ id, data }) => {
      if (data.status !== "pending") end(`operation ${id}`, data.status);
      else if (!open.has(`operation ${id}`))
        begin(`operation ${id}`, "waits", "operation", `operation ${data.toolName}`);
    },
    "data-compaction": () => mark("compaction", "the context is shortened"),
    "data-iteration-limit": () => mark("limit", "as many steps as it may take"),
    "steering-message": () => mark("steering", "a message came in between"),
    error: (chunk) => mark("error", chunk.errorText),
    abort: (chunk) => mark("abort", chunk.reason),
    finish: ({ messageMetadata }) => {
      mark("finish", messageMetadata.status);
      for (const key of [...open.keys()]) end(key, key === "attempt" ? messageMetadata.status : "without an end");
    },
  };

  /** @param {Chunk} chunk */
  function isOutput({ type }) {
    return type.startsWith("text-") || type.startsWith("reasoning-") || type.startsWith("tool-input");
  }

  return {
    list,
    marks,
    add(event, itsPlace) {
      [ms, place] = [event.position.ms, itsPlace];
      noticeMissing(event.position.n);
      noticeSilence();
      end("retry", "ended");
      const call = open.get("call");
      if (call && call.output === null && isOutput(event.chunk)) call.output = ms;
      if (Object.hasOwn(HEEDED, event.chunk.type)) HEEDED[event.chunk.type](event.chunk);
      last = ms;
    },
  };
}
