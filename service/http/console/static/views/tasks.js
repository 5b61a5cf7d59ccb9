// Tasks: what has not ended, what is stuck first; then what has, the newest first.

import { OPEN, concern, hasEnded, openFirst } from "../model/task.js";
import { pages } from "../model/pages.js";
import { confirmed } from "../parts/confirmed.js";
import { button, h, say } from "../parts/dom.js";
import { AGE, filters, finder, olderThan } from "../parts/filters.js";
import { age, counted, duration, moment } from "../parts/format.js";
import { idColumn, liveTable, statusColumn, textColumn } from "../parts/live_table.js";
import { everySecond } from "../parts/ticking.js";
import { doing } from "../parts/toasts.js";
import { get, now, post, withQuery } from "../service/api.js";
import { cancelOperation } from "../service/operations.js";
import { polling } from "../service/polling.js";

/** @typedef {import("../model/task.js").Task} Task */
/** @typedef {{tasks: Task[], earlier: string | null}} TaskList */

const AGAIN_MILLISECONDS = 2000;
const LISTED = 100;
const MAX_OPEN = 500;
const MAX_ROWS = 1000;

/** @type {import("../parts/filters.js").Field[]} */
const FIELDS = [
  {
    name: "status",
    label: "Status",
    choices: [["", "any status"], ...["running", "queued", "waiting", "succeeded", "failed", "cancelled"].map(same)],
  },
  { name: "kind", label: "Kind", choices: [["", "any kind"], ...["turn", "operation"].map(same)] },
  { name: "session", label: "Session", hint: "its whole id" },
  { name: "owner", label: "Owner", hint: "their whole name" },
  AGE,
];

/** @param {string} word @returns {[string, string]} */
function same(word) {
  return [word, word];
}

/** @param {import("../parts/view.js").Address} address @returns {import("../parts/view.js").View} */
export function tasksView({ query }) {
  const problem = h("p", { class: "problem", role: "alert" });
  const wanted = filters("#/tasks", FIELDS, query, startAgain);
  const open = section("Not ended", [
    ...COMMON,
    textColumn("Attention", concernText),
    cancelColumn(() => polled.now()),
  ]);
  const ended = section("Ended", [
    ...COMMON,
    textColumn("Took", took),
    textColumn("Error", (row) => row.error_type ?? "–"),
  ]);
  const more = button("Earlier", () => doing(more, earlier));
  const list = /** @type {ReturnType<typeof pages<Task>>} */ (pages());
  let isOpenWhole = true;
  let running = /** @type {Task[]} */ ([]);

  function startAgain() {
    list.clear();
    running = [];
    for (const each of [open, ended]) each.element.hidden = true;
    polled.now();
  }

  /** @param {AbortSignal} signal */
  async function look(signal) {
    const { age: _, status, ...others } = wanted.values();
    const asking = JSON.stringify(wanted.values());
    const path = (/** @type {string} */ each) => withQuery("/tasks", { ...others, status: each, limit: LISTED });
    const wantedOpen = OPEN.filter((each) => !status || each === status);
    const isEndedWanted = !status || hasEnded({ status: /** @type {Task["status"]} */ (status) });
    /** @type {TaskList[]} */
    const [newest, ...listed] = await Promise.all([
      isEndedWanted ? get(path(status), signal) : NONE,
      ...wantedOpen.map((each) => allOf(path(each), signal)),
    ]);
    if (asking !== JSON.stringify(wanted.values())) return polled.now(); // somebody has changed them meanwhile
    list.take(newest.tasks, newest.earlier);
    running = [...listed.flatMap((each) => each.tasks), ...newest.tasks];
    isOpenWhole = listed.every((each) => each.earlier === null);
    open.element.hidden = wantedOpen.length === 0;
    ended.element.hidden = !isEndedWanted;
    show();
  }

  function show() {
    const { age: seconds, status } = wanted.values();
    const isOpenWanted = (/** @type {Task} */ task) => !status || task.status === status;
    open.show(olderThan(openFirst(running, now()).filter(isOpenWanted), seconds));
    open.tell(isOpenWhole ? "" : `Of each status the newest ${MAX_OPEN}: there are older ones.`);
    const rows = list.rows();
    ended.show(olderThan(rows.filter(hasEnded), seconds));
    more.hidden = list.earlier() === null || rows.length >= MAX_ROWS;
    ended.tell(list.earlier() === null ? "" : `Among the newest ${counted(rows.length, "task")}.`);
  }

  async function earlier() {
    const path = /** @type {string} */ (list.lengthen());
    /** @type {TaskList} */
    const page = await get(path, polled.signal);
    list.more(path, page.tasks, page.earlier);
    show();
  }

  const polled = polling(AGAIN_MILLISECONDS, look, (error) => say(problem, error?.message ?? ""));
  const endTicking = everySecond(show);
  ended.element.append(h("div", { class: "row" }, more));
  return {
    element: h(
      "div",
      { class: "view" },
      h("div", { class: "row spread" }, h("h1", null, "Tasks"), finder("Task", "#/tasks")),
      wanted.element,
      problem,
      open.element,
      ended.element,
    ),
    title: "Tasks",
    close() {
      endTicking();
      polled.stop();
    },
    go({ query: said }) {
      wanted.go(said);
      startAgain();
      return true;
    },
  };
}

/** @type {TaskList} */
const NONE = { tasks: [], earlier: null };

/**
 * Page behind page, up to MAX_OPEN of them: the oldest come last, and are those that are stuck.
 * @param {string} path
 * @param {AbortSignal} signal
 * @returns {Promise<TaskList>}
 */
async function allOf(path, signal) {
  /** @type {TaskList} */
  const found = await get(path, signal);
  while (found.earlier !== null && found.tasks.length < MAX_OPEN) {
    /** @type {TaskList} */
    const page = await get(found.earlier, signal);
    found.tasks.push(...page.tasks);
    found.earlier = page.earlier;
  }
  return found;
}

/** @type {import("../parts/live_table.js").Column<Task>[]} */
const COMMON = [
  idColumn("Task", "#/tasks", (row) => row.id),
  textColumn("Kind", (row) => row.kind),
  statusColumn((row) => row.status),
  idColumn("Session", "#/chat", (row) => row.session_id),
  textColumn("Created", (row) => moment(row.created_at)),
  textColumn("Age", (row) => age(row.created_at)),
];

/**
 * A titled table that is hidden until something is known.
 * @param {string} title
 * @param {import("../parts/live_table.js").Column<Task>[]} columns
 */
function section(title, columns) {
  const table = liveTable({ label: title, columns, key: (/** @type {Task} */ row) => row.id, empty: "None." });
  const note = h("span", { class: "quiet-text" });
  const heading = h("div", { class: "row" }, h("h2", null, title), note);
  return {
    element: h("section", { class: "stack tight", hidden: true }, heading, table.element),
    show: table.show,
    tell: (/** @type {string} */ text) => say(note, text),
  };
}

/** @param {Task} task */
function concernText(task) {
  return concern(task, now()) ?? "–";
}

/** @param {Task} task */
function took({ kind, created_at: created, started_at: started, finished_at: finished }) {
  const begun = kind === "operation" ? created : started; // what waited outside belongs to it
  return begun && finished ? duration(Date.parse(finished) - Date.parse(begun)) : "–";
}

/**
 * Of an operation that nobody wants any more the agent is told: it is the operation that is cancelled, not its task.
 * @param {Task} task
 */
function cancelTask({ id, kind, operation_id: operationId, status }) {
  const isPending = kind === "operation" && operationId && status === "waiting";
  return isPending ? cancelOperation(operationId) : post(`/tasks/${encodeURIComponent(id)}/cancel`, {});
}

/** @param {() => void} changed @returns {import("../parts/live_table.js").Column<Task>} */
function cancelColumn(changed) {
  return {
    title: "Actions",
    cell() {
      let task = /** @type {Task | null} */ (null);
      const cancel = (/** @type {HTMLButtonElement} */ pressed) =>
        doing(pressed, async () => task && cancelTask(task)).then(changed);
      const element = confirmed("Cancel", "Cancel it?", cancel, { class: "quiet" });
      return {
        element,
        show(row) {
          task = row;
          element.hidden = row.cancel_requested_at !== null;
        },
      };
    },
  };
}
