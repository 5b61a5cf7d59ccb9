// Saying by hand how an operation ended: what its service will never say.

import { readJson } from "../model/json_text.js";
import { tellOperation } from "../service/operations.js";
import { asked } from "./asked.js";
import { h, say } from "./dom.js";

/**
 * @param {string} operationId
 * @param {() => Promise<unknown>} again looks at the operation: behind each try, whatever came of it
 */
export function completing(operationId, again) {
  const { controls, problem, ask } = asked("Complete by hand");
  const result = h("textarea", { rows: 3, class: "mono", spellcheck: "false", name: "result" }, "null");
  const errorType = h("input", { name: "error_type", value: "unknown", required: true });
  const message = h("input", { name: "error" });
  const succeeded = h("input", { type: "radio", name: "success", checked: true });
  const failed = h("input", { type: "radio", name: "success" });
  const success = h("label", { class: "wide" }, "Result (JSON)", result);
  const failure = h("div", { class: "row" }, field("Error type", errorType), field("Message for people", message));

  function showFields() {
    success.hidden = !succeeded.checked;
    failure.hidden = succeeded.checked;
    errorType.disabled = succeeded.checked;
  }

  /** @param {SubmitEvent} event */
  async function submitted(event) {
    event.preventDefault();
    const read = readJson(result.value);
    if (succeeded.checked && "problem" in read) return say(problem, read.problem);
    const body = "value" in read && succeeded.checked ? { success: true, result: read.value } : failureBody();
    await ask(() => tellOperation(operationId, "complete", body).finally(() => again().catch(() => {})));
  }

  function failureBody() {
    const error = message.value ? { error: message.value } : {};
    return { success: false, error_type: errorType.value, ...error };
  }

  controls.append(
    h(
      "div",
      { class: "row", role: "radiogroup", "aria-label": "How it ended", onchange: showFields },
      h("label", { class: "inline" }, succeeded, "Succeeded"),
      h("label", { class: "inline" }, failed, "Failed"),
    ),
    success,
    failure,
    h("div", { class: "row" }, h("button", null, "Complete")),
  );
  showFields();
  const form = h("form", { class: "stack tight", onsubmit: submitted }, controls, problem);
  return h("details", { class: "card" }, h("summary", null, "Complete by hand"), form);
}

/** @param {string} name @param {HTMLElement} input */
function field(name, input) {
  return h("label", { class: "grow" }, name, input);
}
