// A task's head: what it is, how it stands, its times and what it used; and the means to prove its log and to have it
// as a file.

import { ask, get, withQuery } from "../service/api.js";
import { button, fill, h, say } from "./dom.js";
import { counted, duration, moment, number, shortId, size } from "./format.js";
import { doing } from "./toasts.js";

const PROOF_MILLISECONDS = 120_000; // a proof reads the whole log
const EXPORT_MILLISECONDS = 600_000;

/** @typedef {import("../model/fold.js").Fold} Fold */
/**
 * @param {string} taskId
 * @param {(position: string) => string} addressOf a position's
 * @param {HTMLElement} connection what is said of the reader
 */
export function logHead(taskId, addressOf, connection) {
  const badge = h("span", { class: "badge" });
  const title = h("h1", { title: taskId }, `Task ${shortId(taskId)}`);
  const facts = h("dl", { class: "facts" });
  const proof = h("div", { class: "proof", role: "status" });
  const redact = h("input", { type: "checkbox" });
  const verifyButton = button("Verify", () => doing(verifyButton, verify));
  const exportButton = button("Export", () => doing(exportButton, save));
  const element = h(
    "section",
    { class: "card stack log-head", "aria-label": "Task" },
    h(
      "div",
      { class: "row spread" },
      h("div", { class: "row" }, title, badge),
      h("div", { class: "row" }, verifyButton, exportButton, h("label", { class: "inline" }, redact, "Redacted")),
    ),
    facts,
    connection,
    proof,
  );
  let task = /** @type {any} */ (null);
  let isClosed = false;

  async function verify() {
    const path = `/tasks/${encodeURIComponent(taskId)}/verify`;
    const answer = await ask("GET", path, { milliseconds: PROOF_MILLISECONDS });
    const verdict = await answer.json();
    if (!isClosed) showProof(verdict);
  }

  /** @param {any} verdict */
  function showProof(verdict) {
    const listed = verdict.findings.map((/** @type {any} */ each) =>
      h(
        "li",
        null,
        `${each.type} `,
        each.position && h("a", { href: addressOf(each.position) }, each.position),
        ` ${each.detail ?? ""}`,
      ),
    );
    const more = verdict.findings_not_listed;
    fill(
      proof,
      h(
        "p",
        { class: "row" },
        h(
          "span",
          { class: "badge", "data-status": verdict.proven ? "ok" : "failed" },
          verdict.proven ? "proven" : "not proven",
        ),
        `${counted(verdict.events, "event")}, ${verdict.closed ? "closed" : "still written"}, `,
        READ_FROM.get(verdict.read_from) ?? verdict.read_from,
      ),
      h("p", { class: "quiet-text" }, "SHA-256 ", h("code", null, verdict.sha256)),
      listed.length > 0 && h("ul", null, ...listed, more > 0 && h("li", null, counted(more, "more finding"))),
    );
  }

  async function save() {
    const query = withQuery(`/tasks/${encodeURIComponent(taskId)}/export`, { redact: redact.checked ? "1" : null });
    const answer = await ask("GET", query, { milliseconds: EXPORT_MILLISECONDS });
    const url = URL.createObjectURL(await answer.blob());
    const seal = answer.headers.get("ETag")?.replaceAll('"', "");
    h("a", { href: url, download: `${taskId}${redact.checked ? ".redacted" : ""}.jsonl` }).click();
    setTimeout(() => URL.revokeObjectURL(url), 60_000); // the browser may still be reading it
    const archived = [" Archived with SHA-256 ", h("code", null, seal)];
    if (!isClosed) fill(proof, h("p", { class: "quiet-text" }, "The file is saved.", ...(seal ? archived : [])));
  }

  return {
    element,
    isEnded: () => Boolean(task?.finished_at),
    /** @param {AbortSignal} signal */
    async ask(signal) {
      task = await get(`/tasks/${encodeURIComponent(taskId)}`, signal);
    },
    /** @param {Fold} fold the whole of what is here @param {number} bytes @param {number} events */
    show(fold, bytes, events) {
      const status = task?.status ?? fold.status;
      badge.dataset.status = status;
      say(badge, status);
      exportButton.disabled = !task?.finished_at;
      exportButton.title = task?.finished_at ? "" : "A log is exported once it has ended.";
      const all = [...factsOfTask(task), ...factsOfLog(fold, bytes, events)];
      if (facts.textContent === all.map(([name, value]) => name + textOf(value)).join("")) return;
      fill(facts, ...all.map(([name, value]) => h("div", null, h("dt", null, name), h("dd", null, value))));
    },
    close() {
      isClosed = true;
    },
  };
}

const READ_FROM = new Map([
  ["hot", "read where it is written"],
  ["archived", "read from its archive"],
  ["both", "read from its archive, and compared with what is where it was written"],
]);

/** @typedef {[name: string, value: Node | string]} Fact */

/** @param {any} task @returns {Fact[]} */
function factsOfTask(task) {
  if (!task) return [];
  const begun = task.kind === "operation" ? task.created_at : (task.started_at ?? task.created_at);
  const took = task.finished_at ? duration(Date.parse(task.finished_at) - Date.parse(begun)) : "–";
  const operation = h("a", { href: `#/operations/${task.operation_id}` }, shortId(task.operation_id ?? ""));
  return [
    ["Kind", task.kind],
    ["Session", h("a", { href: `#/chat/${task.session_id}` }, shortId(task.session_id))],
    .../** @type {Fact[]} */ (task.operation_id ? [["Operation", operation]] : []),
    ["Created", moment(task.created_at)],
    ["Started", moment(task.started_at)],
    ["Finished", moment(task.finished_at)],
    ["Took", took],
    .../** @type {Fact[]} */ (task.error_type ? [["Error", task.error_type]] : []),
  ];
}

/** @param {Fold} fold @param {number} bytes @param {number} events @returns {Fact[]} */
function factsOfLog(fold, bytes, events) {
  return [
    ["Attempts", `${fold.attempts}, epoch ${fold.epoch}`],
    ["Steps", number(fold.steps)],
    ["Tokens", `${number(fold.usage.inputTokens)} in, ${number(fold.usage.outputTokens)} out`],
    ["Events", `${number(events)}, ${size(bytes)}`],
  ];
}

/** @param {Node | string} value */
function textOf(value) {
  return typeof value === "string" ? value : value.textContent;
}
