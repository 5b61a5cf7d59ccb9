// Where a person writes. What was written is lost neither by a reload nor by a post that fails: it stays until the
// service has taken it.

import { button, h } from "./dom.js";
import { onEnter } from "./enter.js";

const MOST_ROWS_PIXELS = 220;

/**
 * @param {{send(text: string): Promise<void>, stop(pressed: HTMLButtonElement): void}} does
 * @param {string} draftName under which what is half written is kept in this tab
 */
export function composer(does, draftName) {
  const field = h("textarea", {
    rows: "1",
    placeholder: "Write a message",
    "aria-label": "Message",
    dir: "auto",
    oninput: changed,
    onkeydown: onEnter(submit),
  });
  const sendButton = h("button", { type: "submit", class: "primary" }, "Send");
  const stopButton = button("Stop", () => does.stop(stopButton), { class: "danger", hidden: true });
  const problem = h("p", { class: "problem small", role: "alert" });
  const onSubmit = (/** @type {Event} */ event) => {
    event.preventDefault();
    submit();
  };
  const row = h("div", { class: "composer-row" }, field, stopButton, sendButton);
  const element = h("form", { class: "composer", onsubmit: onSubmit }, problem, row);
  let isSending = false;

  function changed() {
    if (field.value) sessionStorage.setItem(draftName, field.value);
    else sessionStorage.removeItem(draftName);
    field.style.height = "auto";
    field.style.height = `${Math.min(field.scrollHeight + 2, MOST_ROWS_PIXELS)}px`;
  }

  async function submit() {
    const text = field.value;
    if (isSending || !text.trim()) return;
    isSending = sendButton.disabled = true;
    problem.textContent = "";
    try {
      await does.send(text);
      if (field.value === text) write("");
    } catch (error) {
      problem.textContent = `Not sent: ${/** @type {Error} */ (error).message}`;
    } finally {
      isSending = sendButton.disabled = false;
    }
  }

  /** @param {string} text */
  function write(text) {
    field.value = text;
    changed();
  }

  field.value = sessionStorage.getItem(draftName) ?? "";
  requestAnimationFrame(changed);
  return {
    element,
    focus: () => field.focus(),
    write,
    /** Put a message back that was not taken; nothing that stands there is written over. */
    giveBack(/** @type {string} */ text, /** @type {string} */ why) {
      if (!field.value.includes(text)) write(field.value ? `${text}\n${field.value}` : text);
      problem.textContent = why;
    },
    /** @param {boolean} runs whether there is something to stop */
    running(runs) {
      stopButton.hidden = !runs;
    },
  };
}
