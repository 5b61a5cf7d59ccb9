// Tasks as the service answers them, and which of those that have not ended somebody should look at first.

/**
 * @typedef {object} Task
 * @property {string} id
 * @property {string} session_id
 * @property {"turn" | "operation"} kind
 * @property {"queued" | "waiting" | "running" | "succeeded" | "failed" | "cancelled"} status
 * @property {string | null} operation_id
 * @property {string | null} error_type
 * @property {string} created_at
 * @property {string | null} started_at
 * @property {string | null} finished_at
 * @property {string | null} cancel_requested_at
 */

/** In the order in which a task goes through them. */
export const OPEN = /** @type {const} */ (["waiting", "queued", "running"]);
const ENDED = /** @type {const} */ (["succeeded", "failed", "cancelled"]);

const QUEUED_MILLISECONDS = 60_000;
const RUNNING_MILLISECONDS = 600_000;
const CANCELLING_MILLISECONDS = 30_000;

/** @param {Pick<Task, "status">} task */
export function hasEnded({ status }) {
  return /** @type {readonly string[]} */ (ENDED).includes(status);
}

/**
 * Why somebody should look at an open task; null where nothing speaks for that. A background job may run for long.
 * @param {Task} task
 * @param {number} now in milliseconds since 1970
 * @returns {string | null}
 */
export function concern(task, now) {
  if (hasEnded(task)) return null;
  const since = (/** @type {string | null} */ moment) => (moment === null ? 0 : now - Date.parse(moment));
  if (since(task.cancel_requested_at) > CANCELLING_MILLISECONDS) return "is to be cancelled, and is not yet";
  if (task.status === "queued" && task.error_type !== null) return `its last try failed: ${task.error_type}`;
  if (task.status === "queued" && since(task.created_at) > QUEUED_MILLISECONDS) return "is not begun";
  if (task.status === "running" && task.kind === "turn" && since(task.started_at) > RUNNING_MILLISECONDS)
    return "runs for long";
  return null;
}

/**
 * Those that have not ended, each once and as far as it is known to be, what is stuck first, and then the oldest.
 * @param {Task[]} listed
 * @param {number} now
 */
export function openFirst(listed, now) {
  const furthest = new Map(/** @type {[string, Task][]} */ ([]));
  for (const task of listed) {
    const known = furthest.get(task.id);
    if (known === undefined || place(task) > place(known)) furthest.set(task.id, task);
  }
  const open = [...furthest.values()].filter((task) => !hasEnded(task));
  const rank = (/** @type {Task} */ task) => (concern(task, now) === null ? 1 : 0);
  return open.sort((one, other) => rank(one) - rank(other) || (one.created_at < other.created_at ? -1 : 1));
}

/** @param {Task} task */
function place({ status }) {
  return [...OPEN, ...ENDED].indexOf(status);
}
