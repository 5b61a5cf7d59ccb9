// Operations as the service answers them, and what a person wants to know of one first: whether it is stuck.

/**
 * @typedef {object} FollowUp
 * @property {string} task_id
 * @property {string} status
 * @property {string | null} error_type
 * @property {number} failed_tries
 * @property {string} due_at
 */
/**
 * @typedef {object} Delivery
 * @property {string} id
 * @property {string} at
 * @property {string} door
 * @property {string} by
 * @property {string | null} delivery_id
 * @property {string} disposition
 * @property {string} status
 * @property {Record<string, any> | null} outcome
 * @property {number} outcome_bytes
 * @property {number} times
 */
/**
 * @typedef {object} Operation
 * @property {string} id
 * @property {string} session_id
 * @property {string | null} owner
 * @property {string} task_id
 * @property {string} turn_id
 * @property {string} tool
 * @property {"remote" | "job" | "person" | "timer"} executor
 * @property {"pending" | "succeeded" | "failed" | "cancelled"} status
 * @property {string | null} error_type
 * @property {string} created_at
 * @property {string | null} deadline
 * @property {string | null} ended_at
 * @property {unknown} progress
 * @property {number} delivered
 * @property {unknown} [arguments] only where it was asked for alone, as are those below
 * @property {Record<string, any> | null} [outcome]
 * @property {Delivery[]} [deliveries]
 * @property {FollowUp[]} [follow_ups]
 */

/** The tool that asks a person a question; whatever else waits for a person waits for a yes or a no. */
export const ASK = "ask";

/** @param {Partial<Operation>} operation @param {number} now in milliseconds since 1970 */
export function isOverdue(operation, now) {
  return operation.status === "pending" && Boolean(operation.deadline) && Date.parse(operation.deadline ?? "") < now;
}

/**
 * Its status, for people: what is pending past its deadline is overdue.
 * @param {Partial<Operation>} operation
 * @param {number} now
 */
export function shownStatus(operation, now) {
  return isOverdue(operation, now) ? "overdue" : (operation.status ?? "");
}

/**
 * The follow-up that can be redriven: the newest, where it has failed, or rests before it is tried again.
 * @param {Partial<Operation>} operation
 * @returns {FollowUp | null}
 */
export function failingFollowUp({ follow_ups: followUps = [] }) {
  const newest = followUps.at(-1);
  if (newest === undefined) return null;
  return newest.status === "failed" || (newest.status === "queued" && newest.failed_tries > 0) ? newest : null;
}

/**
 * Whether nothing more will come of it by itself: it has ended, and so have the tasks that go on with that.
 * @param {Operation} operation asked for alone
 */
export function isSettled({ status, follow_ups: followUps = [] }) {
  if (status === "pending" || failingFollowUp({ follow_ups: followUps })) return false;
  return followUps.every((each) => ["succeeded", "failed", "cancelled"].includes(each.status));
}
