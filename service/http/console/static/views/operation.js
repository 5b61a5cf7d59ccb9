// An operation's whole life: what it is and how it ended, who said what about that and when, and what goes on with it.

import { inOrder } from "../model/readings.js";
import { completing } from "../parts/completing.js";
import { fill, h, say } from "../parts/dom.js";
import { moment, shortId, size } from "../parts/format.js";
import { column, idColumn, liveTable, statusColumn, textColumn } from "../parts/live_table.js";
import { operationCard } from "../parts/operation_card.js";
import { outcomeView } from "../parts/outcome_view.js";
import { Refused } from "../service/api.js";
import { readOperation } from "../service/operations.js";
import { polling } from "../service/polling.js";

/** @typedef {import("../model/operation.js").Operation} Operation */
/** @typedef {import("../model/operation.js").Delivery} Delivery */
/** @typedef {import("../model/operation.js").FollowUp} FollowUp */

const AGAIN_MILLISECONDS = 2000;
const NO_SUCH = "There is no such operation, or it is somebody else's.";

/** @param {import("../parts/view.js").Address} address @returns {import("../parts/view.js").View} */
export function operationView({ names: [id] }) {
  const closing = new AbortController();
  const look = inOrder(() => readOperation(id, closing.signal), show);
  const problem = h("p", { class: "problem", role: "alert" });
  const card = operationCard(id, look);
  const byHand = completing(id, look);
  const where = h("p", { class: "quiet-text" });
  const deliveries = deliveryTable();
  const followUps = followUpTable();
  const life = h(
    "div",
    { class: "stack", hidden: true },
    card.element,
    where,
    byHand,
    h("h2", null, "Messages about its end"),
    deliveries.element,
    h("h2", null, "Follow-ups"),
    followUps.element,
  );

  /** @param {Operation} operation */
  function show(operation) {
    life.hidden = false;
    say(problem, "");
    card.update(operation);
    byHand.hidden = operation.status !== "pending";
    if (!where.firstChild) fill(where, whereabouts(operation));
    deliveries.show(operation.deliveries ?? []);
    followUps.show(operation.follow_ups ?? []);
  }

  /** @param {Error | null} error */
  function failed(error) {
    if (error instanceof Refused && error.status === 404) {
      polled.stop();
      life.hidden = true;
    }
    say(problem, error instanceof Refused && error.status === 404 ? NO_SUCH : (error?.message ?? ""));
  }

  const polled = polling(AGAIN_MILLISECONDS, look, failed);
  return {
    element: h("div", { class: "view" }, h("h1", null, "Operation ", h("code", { class: "id" }, id)), problem, life),
    title: `Operation ${shortId(id)}`,
    close() {
      closing.abort();
      polled.stop();
      card.close();
    },
  };
}

/** What it belongs to. @param {Operation} operation */
function whereabouts({ session_id: session, turn_id: turn, owner }) {
  return [
    "Session ",
    h("a", { href: `#/chat/${encodeURIComponent(session)}` }, session),
    `, of ${owner ?? "nobody yet"}; asked for by `,
    h("a", { href: `#/tasks/${encodeURIComponent(turn)}` }, `task ${turn}`),
  ];
}

/** @returns {import("../parts/live_table.js").LiveTable<Delivery>} */
function deliveryTable() {
  return liveTable({
    label: "Messages about its end",
    key: (row) => row.id,
    empty: "Nobody has said how it ended.",
    columns: [
      textColumn("At", (row) => moment(row.at)),
      textColumn("Door", (row) => row.door),
      textColumn("By", (row) => row.by),
      textColumn("Called", (row) => row.delivery_id ?? "–", { class: "mono" }),
      textColumn("Became", (row) => row.disposition + (row.times > 1 ? `, ${row.times} times` : "")),
      column("Outcome", () => h("div"), showOutcome),
    ],
  });
}

/** @param {HTMLElement} element @param {Delivery} row */
function showOutcome(element, row) {
  if (element.firstChild) return; // a message does not change
  if (row.disposition === "redriven") return fill(element, "–");
  const status = h("span", { class: "badge", "data-status": row.status }, row.status);
  const large = row.outcome === null ? `${size(row.outcome_bytes)}: ` : null;
  fill(element, h("details", null, h("summary", null, status), large, outcomeView(row.status, row.outcome)));
}

/** @returns {import("../parts/live_table.js").LiveTable<FollowUp>} */
function followUpTable() {
  return liveTable({
    label: "Follow-ups",
    key: (row) => row.task_id,
    empty: "Nothing goes on with its end (yet).",
    columns: [
      idColumn("Log", "#/tasks", (/** @type {FollowUp} */ row) => row.task_id),
      statusColumn((row) => row.status),
      textColumn("Failed tries", (row) => String(row.failed_tries)),
      textColumn("Error", (row) => row.error_type ?? "–", { class: "mono" }),
      textColumn("Due", (row) => (row.status === "queued" ? moment(row.due_at) : "–")),
    ],
  });
}
