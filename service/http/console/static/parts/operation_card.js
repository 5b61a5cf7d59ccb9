// An operation as a card that is told anew in its place: what it is, how far it is, how it ended, and what a person can
// do about it now. Whoever has the card tells it what is known, all or a part; a living one looks for itself.

import { ASK, failingFollowUp, isOverdue, isSettled, shownStatus } from "../model/operation.js";
import { inOrder } from "../model/readings.js";
import { Refused, now } from "../service/api.js";
import { cancelOperation, readOperation, redriveOperation } from "../service/operations.js";
import { polling } from "../service/polling.js";
import { asked } from "./asked.js";
import { confirmed } from "./confirmed.js";
import { button, fill, h, say } from "./dom.js";
import { duration, jsonText, moment, reveal } from "./format.js";
import { operationAnswer } from "./operation_answer.js";
import { outcomeView, value } from "./outcome_view.js";
import { everySecond } from "./ticking.js";
import { toast } from "./toasts.js";

/** @typedef {Partial<import("../model/operation.js").Operation>} Known */
/**
 * @typedef {object} OperationCard
 * @property {HTMLElement} element
 * @property {(known: Known) => void} update
 * @property {() => void} close
 */
/** @typedef {{element: HTMLElement, show(known: Known): void}} Part */

const AGAIN_MILLISECONDS = 3000;

/**
 * @param {string} operationId
 * @param {() => Promise<unknown>} again looks at the operation, and updates the card: behind whatever was done here
 * @param {HTMLElement | null} [link] where there is more of it
 * @returns {OperationCard}
 */
export function operationCard(operationId, again, link = null) {
  let isClosed = false;
  let known = /** @type {Known} */ ({ id: operationId });
  let endTicking = /** @type {(() => void) | null} */ (null);
  const { controls, problem, ask } = asked("What to do");
  const parts = [heading(link), facts(), question(), given(), progress(), outcome(), followUp()];
  const actions = [answering(operationId, act), cancelling(operationId, act), redriving(operationId, act)];
  controls.append(...actions.map((each) => each.element));
  const element = h(
    "article",
    { class: "card operation", tabindex: -1, "aria-label": "Operation" },
    ...parts.map((each) => each.element),
    controls,
    problem,
  );

  function show() {
    element.setAttribute("aria-label", `Operation ${known.tool ?? ""}`);
    for (const part of [...parts, ...actions]) part.show(known);
    controls.hidden = actions.every((each) => each.element.hidden);
    const isTicking = known.status === "pending" && Boolean(known.deadline) && !isClosed;
    if (isTicking) endTicking ??= everySecond(show);
    else endTicking = endTicking?.() ?? null;
  }

  /** @param {Known} more */
  function update(more) {
    known = { ...known, ...more };
    show();
  }

  /** What was refused was perhaps said too late: then it has ended. @param {() => Promise<unknown>} asking */
  function act(asking) {
    return ask(() => asking().finally(() => again().catch(() => {})));
  }

  function close() {
    isClosed = true;
    endTicking = endTicking?.() ?? null;
  }

  return { element, update, close };
}

/**
 * A card that keeps itself told while it is in sight, until nothing more is to be expected of the operation.
 * @param {string} operationId
 * @returns {{element: HTMLElement, close(): void}}
 */
export function livingOperationCard(operationId) {
  const closing = new AbortController();
  const look = inOrder(() => readOperation(operationId, closing.signal), show);
  const all = h("a", { class: "small", href: `#/operations/${encodeURIComponent(operationId)}` }, "Operation");
  const card = operationCard(operationId, look, all);
  const trouble = h("p", { class: "problem" });

  let isInSight = false;
  const sight = new IntersectionObserver((seen) => {
    isInSight = seen[seen.length - 1].isIntersecting;
    if (isInSight) polled.now();
  });

  /** @param {import("../model/operation.js").Operation} operation */
  function show(operation) {
    card.update(operation);
    if (isSettled(operation)) polled.stop();
  }

  /** @param {Error | null} error */
  function failed(error) {
    say(trouble, error?.message ?? "");
    if (error instanceof Refused && error.status === 404) polled.stop();
  }

  const polled = polling(AGAIN_MILLISECONDS, async () => isInSight && look(), failed);
  card.element.append(trouble);
  sight.observe(card.element);
  return {
    element: card.element,
    close() {
      closing.abort();
      sight.disconnect();
      polled.stop();
      card.close();
    },
  };
}

/** @param {HTMLElement | null} link @returns {Part} */
function heading(link) {
  const tool = h("strong");
  const status = h("span", { class: "badge" });
  const log = h("a", { class: "small" }, "Log");
  const element = h(
    "header",
    { class: "row spread" },
    h("span", { class: "row" }, tool, status),
    h("span", { class: "row" }, log, link),
  );
  return {
    element,
    show(known) {
      const shown = shownStatus(known, now());
      say(tool, known.tool ?? "…");
      say(status, shown || "…");
      status.dataset.status = shown;
      log.hidden = !known.task_id;
      if (known.task_id) log.href = `#/tasks/${encodeURIComponent(known.task_id)}`;
    },
  };
}

/** Who does it, since when, until when. @returns {Part} */
function facts() {
  const element = h("p", { class: "quiet-text" });
  return {
    element,
    show(known) {
      const said = [whoOf(known), known.created_at && `begun ${moment(known.created_at)}`];
      say(element, [...said, deadlineText(known)].filter(Boolean).join(" · "));
    },
  };
}

/** @param {Known} known */
function whoOf({ executor, ended_at: ended }) {
  if (executor === "person" && ended) return "was put to a person";
  return executor && WHO[executor];
}

const WHO = {
  remote: "an external service does it",
  job: "a background job",
  person: "waits for a person",
  timer: "a timer",
};

/** @param {Known} known */
function deadlineText(known) {
  if (known.ended_at) return `ended ${moment(known.ended_at)}`;
  if (!known.deadline) return null;
  const left = Date.parse(known.deadline) - now();
  return isOverdue(known, now()) ? `overdue by ${duration(-left)}` : `due in ${duration(left)}`;
}

/** @returns {Part} */
function question() {
  const element = h("p", { class: "question" });
  return {
    element,
    show(known) {
      const text = known.tool === ASK ? /** @type {any} */ (known.arguments)?.question : undefined;
      element.hidden = typeof text !== "string";
      if (typeof text === "string") say(element, reveal(text));
    },
  };
}

/** What its tool was given: open where somebody is to say yes to it. @returns {Part} */
function given() {
  const shown = value("Arguments", null);
  const element = h("details", { hidden: true }, h("summary", null, "Arguments"), shown);
  let told = /** @type {unknown} */ (undefined);
  return {
    element,
    show(known) {
      if (known.arguments === undefined || known.status === undefined) return;
      const wasHidden = element.hidden;
      element.hidden = false;
      if (told !== known.arguments) say(shown, jsonText(known.arguments)); // and not each second anew
      told = known.arguments;
      if (wasHidden) element.open = known.executor === "person" && known.tool !== ASK && known.status === "pending";
    },
  };
}

/** @returns {Part} */
function progress() {
  const bar = h("progress", { max: 1, "aria-label": "Progress" });
  const text = h("span", { class: "mono small" });
  const element = h("div", { class: "row" }, bar, text);
  return {
    element,
    show({ progress: far, status }) {
      element.hidden = far === undefined || far === null || status !== "pending";
      if (element.hidden) return;
      const isShare = typeof far === "number" && far >= 0 && far <= 1;
      bar.hidden = !isShare;
      if (isShare) bar.value = far;
      say(text, isShare ? `${Math.round(far * 100)} %` : typeof far === "string" ? reveal(far) : jsonText(far));
    },
  };
}

/** @returns {Part} */
function outcome() {
  const element = h("div");
  let shown = "";
  return {
    element,
    show(known) {
      element.hidden = !known.outcome;
      const text = JSON.stringify([known.status, known.outcome]);
      if (element.hidden || text === shown) return;
      shown = text;
      fill(element, outcomeView(known.status ?? "", known.outcome));
    },
  };
}

/** @returns {Part} */
function followUp() {
  const element = h("p", { class: "problem" });
  return {
    element,
    show(known) {
      const failing = failingFollowUp(known);
      say(element, failing === null ? "" : followUpText(failing));
    },
  };
}

/** @param {import("../model/operation.js").FollowUp} failing */
function followUpText({ status, error_type: errorType, failed_tries: tries, due_at: due }) {
  const cause = `${errorType ?? "no reason"}, tried ${tries === 1 ? "once" : `${tries} times`}`;
  return status === "failed"
    ? `The agent could not go on with this (${cause}).`
    : `The agent could not go on with this yet (${cause}); it is tried again at ${moment(due)}.`;
}

/** @typedef {(asking: () => Promise<unknown>) => Promise<boolean>} Act */

/** @param {string} id @param {Act} act @returns {Part} */
function answering(id, act) {
  const element = h("div", { hidden: true });
  return {
    element,
    show(known) {
      element.hidden = !(known.status === "pending" && known.executor === "person" && known.tool);
      if (!element.hidden && !element.firstChild) element.append(operationAnswer(id, known.tool ?? "", act));
    },
  };
}

/** @param {string} id @param {Act} act @returns {Part} */
function cancelling(id, act) {
  const element = confirmed("Cancel", "Cancel it?", () => act(() => cancelOperation(id)), { class: "quiet" });
  return {
    element,
    show(known) {
      element.hidden = known.status !== "pending";
    },
  };
}

/** @param {string} id @param {Act} act @returns {Part} */
function redriving(id, act) {
  const element = button("Redrive", redrive, { class: "primary" });
  async function redrive() {
    if (await act(() => redriveOperation(id))) toast("The agent is told again.", "done");
  }
  return {
    element,
    show(known) {
      element.hidden = failingFollowUp(known) === null;
    },
  };
}
