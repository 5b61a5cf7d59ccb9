// Where a person writes. What was written is lost neither by a reload nor by a post that fails: it stays until the
// service has taken it.

import { tab } from "../service/tab.js";
import { button, h } from "./dom.js";
import { onEnter } from "./enter.js";

const MOST_ROWS_PIXELS = 220;

/** What is being sent, by the name of its draft: who has been elsewhere meanwhile finds it so. */
const underway = /** @type {Map<string, {text: string, sending: Promise<void>}>} */ (new Map());

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
    if (field.value) tab.keep(draftName, field.value);
    else tab.forget(draftName);
    fit();
  }

  function fit() {
    field.style.height = "auto";
    field.style.height = `${Math.min(field.scrollHeight + 2, MOST_ROWS_PIXELS)}px`;
  }

  function submit() {
    const text = field.value;
    if (isSending || !text.trim()) return;
    underway.set(draftName, { text, sending: does.send(text) });
    settle();
  }

  /** What is sent stays until it was taken. */
  async function settle() {
    const mine = underway.get(draftName);
    if (!mine) return;
    isSending = sendButton.disabled = true;
    problem.textContent = "";
    try {
      await mine.sending;
      if (tab.kept(draftName) === mine.text) tab.forget(draftName);
      if (field.value === mine.text) field.value = "";
      fit();
    } catch (error) {
      problem.textContent = `Not sent: ${/** @type {Error} */ (error).message}`;
    } finally {
      isSending = sendButton.disabled = false;
      if (underway.get(draftName) === mine) underway.delete(draftName);
    }
  }

  /** @param {string} text */
  function write(text) {
    field.value = text;
    changed();
  }

  field.value = underway.get(draftName)?.text ?? tab.kept(draftName) ?? "";
  requestAnimationFrame(fit);
  settle();
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
