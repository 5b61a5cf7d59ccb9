// Operations: what is stuck, and why, on top; then all, the newest first.

import { failingFollowUp, isOverdue, shownStatus } from "../model/operation.js";
import { pages } from "../model/pages.js";
import { confirmed } from "../parts/confirmed.js";
import { button, h, say } from "../parts/dom.js";
import { AGE, filters, finder, olderThan } from "../parts/filters.js";
import { age, counted, duration, moment } from "../parts/format.js";
import { idColumn, liveTable, statusColumn, textColumn } from "../parts/live_table.js";
import { everySecond } from "../parts/ticking.js";
import { doing, toast } from "../parts/toasts.js";
import { Refused, get, now, withQuery } from "../service/api.js";
import { readOperation, redriveOperation } from "../service/operations.js";
import { polling } from "../service/polling.js";

/** @typedef {import("../model/operation.js").Operation} Operation */
/** @typedef {import("../model/operation.js").FollowUp} FollowUp */
/** @typedef {import("../parts/live_table.js").Column<Operation>} Column */
/** @typedef {{operations: Operation[], earlier: string | null}} OperationList */

const AGAIN_MILLISECONDS = 2000;
const LISTED = 100;
const MAX_ROWS = 1000;
const EXPLAINED = 20;
const EXPLAINED_MILLISECONDS = 10_000;

/** @type {import("../parts/filters.js").Field[]} */
const FIELDS = [
  {
    name: "status",
    label: "Status",
    choices: [["", "any status"], ...["pending", "succeeded", "failed", "cancelled"].map(same)],
  },
  { name: "executor", label: "Executor", choices: [["", "any"], ...["remote", "job", "person", "timer"].map(same)] },
  { name: "tool", label: "Tool", hint: "its whole name" },
  { name: "session", label: "Session", hint: "its whole id" },
  {
    name: "stuck",
    label: "Show",
    choices: [
      ["", "all"],
      ["1", "stuck only"],
    ],
  },
  AGE,
];

/** @param {string} word @returns {[string, string]} */
function same(word) {
  return [word, word];
}

/** @param {import("../parts/view.js").Address} address @returns {import("../parts/view.js").View} */
export function operationsView({ query }) {
  const problem = h("p", { class: "problem", role: "alert" });
  const wanted = filters("#/operations", FIELDS, query, startAgain);
  const reasons = reasonsOfStuck();
  const stuckTable = liveTable({
    label: "Stuck",
    columns: [...COMMON, textColumn("Why", reasons.of), redriveColumn(() => polled.now())],
    key: idOf,
    empty: "Nothing is stuck.",
  });
  const allTable = liveTable({
    label: "All",
    columns: [...COMMON, textColumn("Error", (row) => row.error_type ?? "–", { class: "mono" })],
    key: idOf,
    empty: "None.",
  });
  const redriveAll = confirmed("Redrive all", "Redrive all?", (pressed) => doing(pressed, redriveEach));
  const more = button("Earlier", () => doing(more, earlier));
  const note = h("p", { class: "quiet-text" });
  const stuckNote = h("span", { class: "quiet-text" });
  const stuckTitle = h("div", { class: "row" }, h("h2", null, "Stuck"), redriveAll, stuckNote);
  const stuckSection = h("section", { class: "stack tight", hidden: true }, stuckTitle, stuckTable.element);
  const foot = h("div", { class: "row" }, more, note);
  const allSection = h("section", { class: "stack tight", hidden: true }, h("h2", null, "All"), allTable.element, foot);
  const list = /** @type {ReturnType<typeof pages<Operation>>} */ (pages());
  let stuck = /** @type {Operation[]} */ ([]);

  function startAgain() {
    list.clear();
    stuck = [];
    for (const each of [stuckSection, allSection]) each.hidden = true;
    polled.now();
  }

  /** @param {AbortSignal} signal */
  async function look(signal) {
    const { age: _, stuck: isOnlyStuck, ...others } = wanted.values();
    const asking = JSON.stringify(wanted.values());
    const ask = (/** @type {string} */ which) =>
      get(withQuery("/operations", { ...others, stuck: which, limit: LISTED }), signal);
    /** @type {OperationList[]} */
    const [found, all] = await Promise.all([ask("1"), isOnlyStuck ? NONE : ask("")]);
    await reasons.learn(found.operations, signal);
    if (asking !== JSON.stringify(wanted.values())) return polled.now(); // somebody has changed them meanwhile
    stuck = found.operations;
    say(stuckNote, found.earlier === null ? "" : `The newest ${LISTED}: there are older ones.`);
    list.take(all.operations, all.earlier);
    stuckSection.hidden = false;
    allSection.hidden = Boolean(isOnlyStuck);
    show();
  }

  function show() {
    const { age: seconds } = wanted.values();
    stuckTable.show(olderThan(stuck, seconds));
    redriveAll.hidden = !stuck.some(isRedrivable);
    const rows = list.rows();
    allTable.show(olderThan(rows, seconds));
    more.hidden = list.earlier() === null || rows.length >= MAX_ROWS;
    say(note, list.earlier() === null ? "" : `The newest ${counted(rows.length, "operation")}.`);
  }

  async function earlier() {
    const path = /** @type {string} */ (list.lengthen());
    /** @type {OperationList} */
    const page = await get(path, polled.signal);
    list.more(path, page.operations, page.earlier);
    show();
  }

  async function redriveEach() {
    const wantedNow = olderThan(stuck, wanted.values().age).filter(isRedrivable);
    let redriven = 0;
    for (const { id } of wantedNow) {
      try {
        await redriveOperation(id);
        redriven += 1;
      } catch (error) {
        if (!(error instanceof Refused)) throw error;
        toast(error.message); // the others may be redriven none the less: this one has perhaps gone through meanwhile
      }
    }
    toast(`${redriven} of ${counted(wantedNow.length, "follow-up")} redriven.`, "done");
    polled.now();
  }

  const polled = polling(AGAIN_MILLISECONDS, look, (error) => say(problem, error?.message ?? ""));
  const endTicking = everySecond(show);
  return {
    element: h(
      "div",
      { class: "view" },
      h("div", { class: "row spread" }, h("h1", null, "Operations"), finder("Operation", "#/operations")),
      wanted.element,
      problem,
      stuckSection,
      allSection,
    ),
    title: "Operations",
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

/** @type {OperationList} */
const NONE = { operations: [], earlier: null };

/** @param {Operation} operation */
function idOf({ id }) {
  return id;
}

/** Whether it is stuck in its follow-up. @param {Operation} operation of those that are stuck */
function isRedrivable({ status }) {
  return status !== "pending";
}

/** @type {Column[]} */
const COMMON = [
  idColumn("Operation", "#/operations", idOf),
  textColumn("Tool", (row) => row.tool),
  statusColumn((row) => shownStatus(row, now())),
  textColumn("Executor", (row) => row.executor),
  idColumn("Session", "#/chat", (row) => row.session_id),
  textColumn("Age", (row) => age(row.created_at)),
  textColumn("Deadline", (row) => moment(row.deadline)),
  textColumn("Messages", (row) => String(row.delivered)),
];

/** Why those are stuck that are: of a follow-up only the operation itself says it, so the first ones are asked. */
function reasonsOfStuck() {
  /** @type {Map<string, {at: number, followUp: FollowUp | null}>} */
  const known = new Map();

  /** @param {Operation} operation @param {AbortSignal} signal */
  async function learnOne({ id }, signal) {
    const at = Date.now();
    if (at - (known.get(id)?.at ?? 0) < EXPLAINED_MILLISECONDS) return;
    try {
      known.set(id, { at, followUp: failingFollowUp(await readOperation(id, signal)) });
    } catch (error) {
      if (!(error instanceof Refused)) throw error; // else it is gone, and the next list says so
    }
  }

  return {
    /** @param {Operation[]} stuck @param {AbortSignal} signal */
    async learn(stuck, signal) {
      const asked = stuck.filter(isRedrivable).slice(0, EXPLAINED);
      for (const id of [...known.keys()]) if (!asked.some((each) => each.id === id)) known.delete(id);
      await Promise.all(asked.map((each) => learnOne(each, signal)));
    },
    /** @param {Operation} operation */
    of(operation) {
      if (isOverdue(operation, now())) return `overdue by ${age(operation.deadline)}`;
      const followUp = known.get(operation.id)?.followUp;
      if (!followUp) return "its follow-up fails";
      const left = Date.parse(followUp.due_at) - now();
      const when = followUp.status === "failed" ? "" : `, again in ${duration(Math.max(0, left))}`;
      return `its follow-up ${followUp.status === "failed" ? "failed" : "rests"}: ${followUp.error_type ?? "–"}${when}`;
    },
  };
}

/** @param {() => void} changed @returns {Column} */
function redriveColumn(changed) {
  return {
    title: "Actions",
    cell() {
      let id = "";
      const element = button("Redrive", () => doing(element, one).then(changed), { class: "primary" });
      async function one() {
        await redriveOperation(id);
        toast("The agent is told again.", "done");
      }
      return {
        element,
        show(row) {
          id = row.id;
          element.hidden = !isRedrivable(row);
        },
      };
    },
  };
}
