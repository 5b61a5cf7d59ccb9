// What a person says to an operation that waits for them: the answer to a question, or a yes or a no. What is half
// written stays while the operation is told anew.

import { ASK } from "../model/operation.js";
import { tellOperation } from "../service/operations.js";
import { tab } from "../service/tab.js";
import { button, h } from "./dom.js";
import { onEnter } from "./keys.js";

const MAX_REASON = 2000;

/**
 * @param {string} operationId
 * @param {string} tool
 * @param {(act: () => Promise<unknown>) => Promise<boolean>} ask
 */
export function operationAnswer(operationId, tool, ask) {
  const say = (/** @type {object} */ body) => ask(() => tellOperation(operationId, "approve", body));
  return tool === ASK ? question(say, `playhead.answer.${operationId}`) : approval(say);
}

/** @param {(body: object) => Promise<boolean>} say @param {string} draftName */
function question(say, draftName) {
  const asSubmitted = onEnter(() => submit.click()); // which asks for a text where there is none
  const keep = () => tab.keep(draftName, answer.value);
  const keys = { oninput: keep, onkeydown: asSubmitted };
  const answer = h("textarea", { rows: 2, required: true, name: "answer", dir: "auto", ...keys });
  const submit = h("button", { class: "primary" }, "Answer");
  /** @param {Event} event */
  async function submitted(event) {
    event.preventDefault();
    if (await say({ answer: answer.value })) tab.forget(draftName);
  }
  answer.value = tab.kept(draftName) ?? "";
  return h(
    "form",
    { class: "stack tight", onsubmit: submitted },
    h("label", null, "Your answer", answer),
    h("div", { class: "row" }, submit),
  );
}

/** @param {(body: object) => Promise<boolean>} say */
function approval(say) {
  const reason = h("input", { maxlength: MAX_REASON, name: "reason" });
  function deny() {
    say(reason.value ? { approved: false, reason: reason.value } : { approved: false });
  }
  return h(
    "div",
    { class: "row bottom" },
    button("Approve", () => say({ approved: true }), { class: "primary" }),
    h("label", { class: "grow" }, "Reason for a no (optional)", reason),
    button("Deny", deny, { class: "danger" }),
  );
}
