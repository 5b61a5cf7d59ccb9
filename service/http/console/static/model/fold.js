// What a log says: the assistant's message and the state of its task, derived from the events alone, one by one in
// their order. The parts are those that the service stores for the message, so that a reload shows the same.
//
// It reads what is there and never fails: a chunk of a type that it does not know, or that cannot stand where it
// stands, changes nothing. Whether a log is whole is for `verify` to say.

/** @typedef {{type: string, [field: string]: any}} Chunk */
/** @typedef {{type: string, [field: string]: any}} Part */
/**
 * Something that is told beside the message: `place` is how many parts stood before it.
 * @typedef {{kind: "attempt" | "retry" | "reset" | "compaction" | "limit" | "steering", place: number, data: any}} Note
 */
/** @typedef {{inputTokens: number, outputTokens: number}} Usage */
/**
 * @typedef {object} Fold
 * @property {string | null} taskId
 * @property {string | null} sessionId
 * @property {string | null} messageId of the assistant's message
 * @property {{messageId: string, parts: Part[]} | null} input the message that is answered
 * @property {Part[]} parts
 * @property {Note[]} notes
 * @property {"queued" | "running" | "succeeded" | "failed" | "cancelled"} status
 * @property {number} epoch of the last attempt
 * @property {number} attempts
 * @property {number} steps
 * @property {Usage} usage of the model calls so far
 * @property {any} bounced the input that was given back, if it was
 * @property {string | null} errorType
 * @property {string | null} errorText
 * @property {string | null} abortReason
 * @property {any} finish metadata of the terminal event, once it is there
 * @property {boolean} stepIsOpen
 * @property {number} stepStartsAt how many parts stand before the open step
 */

/** @returns {Fold} */
export function emptyFold() {
  return {
    taskId: null,
    sessionId: null,
    messageId: null,
    input: null,
    parts: [],
    notes: [],
    status: "queued",
    epoch: 0,
    attempts: 0,
    steps: 0,
    usage: { inputTokens: 0, outputTokens: 0 },
    bounced: null,
    errorType: null,
    errorText: null,
    abortReason: null,
    finish: null,
    stepIsOpen: false,
    stepStartsAt: 0,
  };
}

/**
 * The fold as it stands; what is applied to either from now on does not change the other.
 * @param {Fold} fold
 * @returns {Fold}
 */
export function copyOf(fold) {
  return { ...fold, parts: fold.parts.map((part) => ({ ...part })), notes: [...fold.notes], usage: { ...fold.usage } };
}

/**
 * Take the next event in.
 * @param {Fold} fold
 * @param {Chunk} chunk
 */
export function apply(fold, chunk) {
  if (!Object.hasOwn(APPLIED, chunk.type)) return;
  try {
    APPLIED[chunk.type](fold, chunk);
  } catch {
    // It lacks what its type has.
  }
}

/** The text of the message as it stands. @param {Fold} fold */
export function textOf(fold) {
  return fold.parts
    .filter((part) => part.type === "text")
    .map((part) => part.text)
    .join("");
}

/** @type {Record<string, (fold: Fold, chunk: Chunk) => void>} */
const APPLIED = {
  start: start,
  "start-step": startStep,
  "finish-step": (fold) => {
    fold.stepIsOpen = false;
  },
  "reset-step": resetStep,
  "text-start": (fold, chunk) => beginText(fold, "text", chunk),
  "text-delta": (fold, chunk) => growText(fold, "text", chunk),
  "text-end": (fold, chunk) => endText(fold, "text", chunk),
  "reasoning-start": (fold, chunk) => beginText(fold, "reasoning", chunk),
  "reasoning-delta": (fold, chunk) => growText(fold, "reasoning", chunk),
  "reasoning-end": (fold, chunk) => endText(fold, "reasoning", chunk),
  "tool-input-start": toolInput,
  "tool-input-delta": (fold, chunk) => changeCall(fold, chunk, (call) => (call.inputText += chunk.inputTextDelta)),
  "tool-input-available": toolInput,
  "tool-input-error": toolInput,
  "tool-output-available": toolOutput,
  "tool-output-error": (fold, chunk) =>
    changeCall(fold, chunk, (call) => Object.assign(call, { state: "output-error", errorText: chunk.errorText })),
  "tool-output-denied": (fold, chunk) => changeCall(fold, chunk, (call) => (call.state = "output-denied")),
  "tool-approval-request": (fold, chunk) =>
    changeCall(fold, chunk, (call) =>
      Object.assign(call, { state: "approval-requested", approval: { id: chunk.approvalId } }),
    ),
  "tool-approval-response": approvalResponse,
  "data-operation": operation,
  "data-input": (fold, chunk) => {
    fold.input = chunk.data;
  },
  "data-attempt": (fold, chunk) => {
    fold.epoch = chunk.data.epoch;
    fold.attempts += 1;
    if (fold.attempts > 1) note(fold, "attempt", { attempt: fold.attempts, epoch: fold.epoch });
  },
  "data-retry": (fold, chunk) => note(fold, "retry", chunk.data),
  "data-compaction": (fold, chunk) => note(fold, "compaction", chunk.data),
  "data-iteration-limit": (fold, chunk) => note(fold, "limit", chunk.data),
  "data-bounce-back": (fold, chunk) => {
    fold.bounced = chunk.data;
  },
  "steering-message": (fold, chunk) => note(fold, "steering", { messageId: chunk.id, parts: chunk.parts }),
  "message-metadata": metadata,
  error: (fold, chunk) => {
    fold.errorText = chunk.errorText;
  },
  abort: (fold, chunk) => {
    fold.abortReason = chunk.reason;
  },
  finish: (fold, chunk) => {
    fold.finish = chunk.messageMetadata;
    fold.status = chunk.messageMetadata.status;
  },
};

/** @param {Fold} fold @param {Note["kind"]} kind @param {any} data */
function note(fold, kind, data) {
  fold.notes.push({ kind, place: fold.parts.length, data });
}

/** @param {Fold} fold @param {Chunk} chunk */
function start(fold, chunk) {
  fold.messageId = chunk.messageId;
  fold.taskId = chunk.messageMetadata.taskId;
  fold.sessionId = chunk.messageMetadata.sessionId;
  fold.status = "running";
}

/** @param {Fold} fold */
function startStep(fold) {
  fold.parts.push({ type: "step-start" });
  fold.stepIsOpen = true;
  fold.stepStartsAt = fold.parts.length;
  fold.steps += 1;
}

/** @param {Fold} fold */
function resetStep(fold) {
  if (!fold.stepIsOpen) return;
  const dropped = fold.parts.length - fold.stepStartsAt;
  fold.parts.length = fold.stepStartsAt;
  fold.notes = fold.notes.map((each) => ({ ...each, place: Math.min(each.place, fold.stepStartsAt) }));
  if (dropped) note(fold, "reset", {});
}

/** @param {Fold} fold @param {"text" | "reasoning"} type @param {Chunk} chunk */
function openText(fold, type, chunk) {
  return fold.parts.findLast((part) => part.type === type && part.id === chunk.id && part.state === "streaming");
}

/** @param {Fold} fold @param {"text" | "reasoning"} type @param {Chunk} chunk */
function beginText(fold, type, chunk) {
  fold.parts.push({ type, id: chunk.id, text: "", state: "streaming" });
}

/** @param {Fold} fold @param {"text" | "reasoning"} type @param {Chunk} chunk */
function growText(fold, type, chunk) {
  const part = openText(fold, type, chunk);
  if (part) part.text += chunk.delta;
}

/** @param {Fold} fold @param {"text" | "reasoning"} type @param {Chunk} chunk */
function endText(fold, type, chunk) {
  const part = openText(fold, type, chunk);
  if (part) part.state = "done";
}

/** @param {Fold} fold @param {Chunk} chunk */
function callOf(fold, chunk) {
  return fold.parts.findLast((part) => part.toolCallId !== undefined && part.toolCallId === chunk.toolCallId);
}

/** @param {Fold} fold @param {Chunk} chunk @param {(call: Part) => unknown} change */
function changeCall(fold, chunk, change) {
  const call = callOf(fold, chunk);
  if (call) change(call);
}

/** @param {Fold} fold @param {Chunk} chunk */
function toolInput(fold, chunk) {
  let call = callOf(fold, chunk);
  if (!call) {
    call = { type: `tool-${chunk.toolName}`, toolCallId: chunk.toolCallId, inputText: "", state: "input-streaming" };
    fold.parts.push(call);
  }
  if (chunk.type === "tool-input-available") Object.assign(call, { state: "input-available", input: chunk.input });
  if (chunk.type === "tool-input-error") {
    Object.assign(call, { state: "output-error", input: chunk.input, errorText: chunk.errorText });
  }
}

/** @param {Fold} fold @param {Chunk} chunk */
function toolOutput(fold, chunk) {
  changeCall(fold, chunk, (call) =>
    Object.assign(call, {
      state: "output-available",
      output: chunk.output,
      preliminary: chunk.preliminary === true,
      truncated: chunk.truncated === true,
    }),
  );
}

/** @param {Fold} fold @param {Chunk} chunk */
function approvalResponse(fold, chunk) {
  const call = fold.parts.find((part) => part.approval?.id === chunk.approvalId);
  if (!call) return;
  call.state = "approval-responded";
  call.approval = { id: chunk.approvalId, approved: chunk.approved, reason: chunk.reason };
}

/** @param {Fold} fold @param {Chunk} chunk */
function operation(fold, chunk) {
  const told = fold.parts.find((part) => part.type === "data-operation" && part.id === chunk.id);
  if (told) told.data = chunk.data;
  else fold.parts.push({ type: "data-operation", id: chunk.id, data: chunk.data });
}

/** @param {Fold} fold @param {Chunk} chunk */
function metadata(fold, chunk) {
  const { usage, errorType } = chunk.messageMetadata;
  if (usage) {
    fold.usage.inputTokens += usage.inputTokens;
    fold.usage.outputTokens += usage.outputTokens;
  }
  if (errorType) fold.errorType = errorType;
}
