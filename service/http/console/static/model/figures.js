// Which figures of the service people look at first, out of all that it counts. What is not told is left out.

import { bound, rate, total } from "./metrics.js";

/** @typedef {import("./metrics.js").Look} Look */
/** @typedef {"count" | "seconds" | "rate" | "bytes" | "within"} Unit */
/**
 * @typedef {object} Figure
 * @property {string} label
 * @property {number} value
 * @property {Unit} unit
 * @property {boolean} [isBad] somebody should look at it
 * @property {string} [href]
 */

const LATE_SECONDS = 60;

/** Of the whole service, the same at each process. @param {Look} now @returns {Figure[]} */
export function backlog({ samples }) {
  const of = (/** @type {string} */ kind) => total(samples, "playhead_backlog", { kind });
  const at = (/** @type {string} */ queue) => total(samples, "playhead_amqp_messages", { queue });
  const queued = total(samples, "playhead_oldest_queued_seconds");
  const unarchived = total(samples, "playhead_oldest_unarchived_seconds");
  return known([
    { label: "Tasks queued", value: of("queued"), unit: "count", href: "#/tasks?status=queued" },
    { label: "Oldest queued", value: queued, unit: "seconds", isBad: (queued ?? 0) > LATE_SECONDS },
    { label: "Tasks running", value: of("running"), unit: "count", href: "#/tasks?status=running" },
    { label: "Leases lapsed", value: of("lapsed"), unit: "count", isBad: (of("lapsed") ?? 0) > 0 },
    { label: "Operations pending", value: of("pending"), unit: "count", href: "#/operations?status=pending" },
    {
      label: "Operations overdue",
      value: of("overdue"),
      unit: "count",
      isBad: (of("overdue") ?? 0) > 0,
      href: "#/operations?stuck=1",
    },
    { label: "Logs to be archived", value: of("unarchived"), unit: "count" },
    { label: "Archive lag", value: unarchived, unit: "seconds", isBad: (unarchived ?? 0) > 5 * LATE_SECONDS },
    { label: "Sessions to be removed", value: of("unremoved"), unit: "count" },
    { label: "Dead letters", value: at("dead"), unit: "count", isBad: (at("dead") ?? 0) > 0, href: "#/dead-letters" },
    { label: "Messages parked", value: at("parked"), unit: "count" },
    { label: "Messages ready", value: at("ready"), unit: "count" },
  ]);
}

/** Of the process that answered. @param {Look | null} before @param {Look} now @returns {Figure[]} */
export function ofProcess(before, now) {
  const gaps = total(now.samples, "playhead_gaps_total");
  return known([
    { label: "Followers", value: total(now.samples, "playhead_streams"), unit: "count" },
    { label: "Events stored", value: rate(before, now, "playhead_appended_events_total"), unit: "rate" },
    { label: "Appends", value: rate(before, now, "playhead_appends_total"), unit: "rate" },
    { label: "An append takes", value: bound(0.95, null, now, "playhead_append_seconds"), unit: "within" },
    { label: "Readers hear of events", value: bound(0.95, null, now, "playhead_hint_lag_seconds"), unit: "within" },
    { label: "Tasks claimed", value: total(now.samples, "playhead_claims_total"), unit: "count" },
    { label: "Taken over", value: total(now.samples, "playhead_claims_total", { kind: "taken over" }), unit: "count" },
    {
      label: "Tasks failed",
      value: total(now.samples, "playhead_tasks_ended_total", { status: "failed" }),
      unit: "count",
    },
    { label: "Gaps told", value: gaps, unit: "count", isBad: (gaps ?? 0) > 0 },
    { label: "Memory", value: total(now.samples, "process_resident_memory_bytes"), unit: "bytes" },
  ]);
}

/** @param {(Omit<Figure, "value"> & {value: number | null})[]} figures @returns {Figure[]} */
function known(figures) {
  return figures.flatMap((each) => (each.value === null ? [] : [{ ...each, value: each.value }]));
}
