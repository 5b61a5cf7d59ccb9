// Logs for the tests of the page's modules: events with positions, and whole logs that chance makes, the same each
// time.

/** Numbers from 0 to 1 that chance gives, the same for each seed. */
export function chance(seed) {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state ^ (state >>> 15), state | 1) + 0x6d2b79f5) >>> 0;
    return ((state ^ (state >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Events of these chunks; each begins `gaps[place]` milliseconds after the last one, or 10. */
export function eventsOf(chunks, gaps = {}, firstMs = 1_700_000_000_000) {
  let ms = firstMs;
  return chunks.map((chunk, place) => {
    ms += place ? (gaps[place] ?? 10) : 0;
    return { position: { ms, n: place + 1 }, chunk, bytes: JSON.stringify(chunk).length };
  });
}

export const START = { type: "start", messageId: "m", messageMetadata: { taskId: "t", sessionId: "s" } };
export const attempt = (epoch) => ({ type: "data-attempt", data: { epoch }, transient: true });
export const text = (id, delta) => ({ type: "text-delta", id, delta });
export const call = (toolCallId, toolName = "think") => ({
  type: "tool-input-available",
  toolCallId,
  toolName,
  input: { a: 1 },
});
export const output = (toolCallId, more = {}) => ({ type: "tool-output-available", toolCallId, output: "ok", ...more });
export const retry = (attempt) => ({
  type: "data-retry",
  data: { attempt, waitSeconds: 2, errorType: "rate_limit" },
  transient: true,
});
export const operation = (id, status) => ({ type: "data-operation", id, data: { status, toolName: "timer" } });
export const CALLED = {
  type: "message-metadata",
  messageMetadata: {
    finishReason: "stop",
    usage: { inputTokens: 3, outputTokens: 4 },
    firstOutputMs: 1,
    durationMs: 5,
  },
};
export const FINISH = {
  type: "finish",
  finishReason: "stop",
  messageMetadata: { status: "succeeded", output: "done" },
};

/** A log that could be: steps with texts and tools, retries, take-overs, a message in between. */
export function randomLog(seed, steps = 6) {
  const next = chance(seed);
  const chunks = [START, attempt(1)];
  for (let step = 1; step <= steps; step++) {
    chunks.push({ type: "start-step" });
    if (next() < 0.3) chunks.push(retry(2), { type: "reset-step" });
    if (next() < 0.2) chunks.push(text("lost", "lost"), attempt(step + 1), { type: "reset-step" });
    for (let block = 0; block < 1 + next() * 2; block++) {
      const [kind, id] = [next() < 0.3 ? "reasoning" : "text", `p${step}-${block}`];
      chunks.push({ type: `${kind}-start`, id });
      for (let piece = 0; piece < next() * 9; piece++) {
        chunks.push({ type: `${kind}-delta`, id, delta: `${step}.${block}.${piece} ` });
      }
      chunks.push({ type: `${kind}-end`, id });
    }
    const tools = Math.floor(next() * 3);
    for (let tool = 0; tool < tools; tool++) chunks.push(call(`c${step}-${tool}`));
    chunks.push(CALLED);
    for (let tool = tools - 1; tool >= 0; tool--) chunks.push(output(`c${step}-${tool}`));
    if (next() < 0.3) chunks.push(operation("o", "pending"), operation("o", "succeeded"));
    chunks.push({ type: "finish-step" });
    if (next() < 0.2) chunks.push({ type: "steering-message", id: "u", parts: [{ type: "text", text: "more" }] });
  }
  return eventsOf([...chunks, FINISH]);
}
