// An event in one line: the family that its type belongs to, and what it says.

/** @typedef {import("./fold.js").Chunk} Chunk */
/** @typedef {"lifecycle" | "steps" | "text" | "reasoning" | "tools" | "operations" | "data"} Family */

/** @type {readonly Family[]} */
export const FAMILIES = ["lifecycle", "steps", "text", "reasoning", "tools", "operations", "data"];

const MAX_CHARACTERS = 300;

/** @type {Record<string, Family>} */
const FAMILY = {
  start: "lifecycle",
  finish: "lifecycle",
  error: "lifecycle",
  abort: "lifecycle",
  "data-attempt": "lifecycle",
  "data-input": "lifecycle",
  "data-bounce-back": "lifecycle",
  "steering-message": "lifecycle",
  "start-step": "steps",
  "finish-step": "steps",
  "reset-step": "steps",
  "message-metadata": "steps",
  "data-retry": "steps",
  "data-compaction": "steps",
  "data-iteration-limit": "steps",
  "data-operation": "operations",
  "tool-approval-request": "operations",
  "tool-approval-response": "operations",
};

/** The family of a type, unknown ones included. @param {string} type @returns {Family} */
export function familyOf(type) {
  if (Object.hasOwn(FAMILY, type)) return FAMILY[type];
  if (type.startsWith("text-")) return "text";
  if (type.startsWith("reasoning-")) return "reasoning";
  return type.startsWith("tool-") ? "tools" : "data";
}

/** What an event says, short. @param {Chunk} chunk */
export function summaryOf(chunk) {
  const said = saidBy(chunk);
  return said.length > MAX_CHARACTERS ? `${said.slice(0, MAX_CHARACTERS)}…` : said;
}

/** What an event says, all of it; whatever is in it. @param {Chunk} chunk */
export function saidBy(chunk) {
  try {
    return String((Object.hasOwn(SAID, chunk.type) ? SAID[chunk.type] : otherwise)(chunk));
  } catch {
    return otherwise(chunk); // its fields are not as they were when this was written
  }
}

/** @type {Record<string, (chunk: Chunk) => string>} */
const SAID = {
  start: (chunk) => `message ${chunk.messageId}`,
  finish: (chunk) => `${chunk.messageMetadata.status}: ${chunk.messageMetadata.output}`,
  error: (chunk) => chunk.errorText,
  abort: (chunk) => chunk.reason,
  "start-step": () => "",
  "finish-step": () => "",
  "reset-step": () => "the open step is done again",
  "data-attempt": (chunk) => `epoch ${chunk.data.epoch}`,
  "data-input": (chunk) => textIn(chunk.data.parts),
  "steering-message": (chunk) => textIn(chunk.parts),
  "data-retry": ({ data }) => `${data.errorType}: try ${data.attempt} in ${data.waitSeconds} s`,
  "message-metadata": metadata,
  "text-start": (chunk) => chunk.id,
  "text-end": (chunk) => chunk.id,
  "text-delta": (chunk) => chunk.delta,
  "reasoning-start": (chunk) => chunk.id,
  "reasoning-end": (chunk) => chunk.id,
  "reasoning-delta": (chunk) => chunk.delta,
  "tool-input-start": (chunk) => chunk.toolName,
  "tool-input-delta": (chunk) => chunk.inputTextDelta,
  "tool-input-available": (chunk) => `${chunk.toolName} ${JSON.stringify(chunk.input)}`,
  "tool-input-error": (chunk) => `${chunk.toolName}: ${chunk.errorText}`,
  "tool-output-available": (chunk) => `${chunk.preliminary ? "so far " : ""}${JSON.stringify(chunk.output)}`,
  "tool-output-error": (chunk) => chunk.errorText,
  "tool-output-denied": (chunk) => chunk.toolCallId,
  "tool-approval-request": (chunk) => `asks for ${chunk.approvalId}`,
  "tool-approval-response": (chunk) => `${chunk.approved ? "approved" : "denied"} ${chunk.reason ?? ""}`,
  "data-operation": (chunk) => `${chunk.data.toolName} ${chunk.data.status}`,
};

/** @param {Chunk} chunk */
function metadata({ messageMetadata: { usage, finishReason, durationMs, status, errorType } }) {
  if (!usage) return `${status} ${errorType ?? ""}`;
  return `${finishReason}, ${usage.inputTokens} + ${usage.outputTokens} tokens, ${durationMs} ms`;
}

/** @param {{type: string, text?: string}[]} parts */
function textIn(parts) {
  return parts.map((part) => part.text ?? `[${part.type}]`).join(" ");
}

/** @param {Chunk} chunk */
function otherwise({ type: _, transient: __, ...fields }) {
  return JSON.stringify(fields);
}
