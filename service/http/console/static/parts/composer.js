// Where a person writes. What was written is lost neither by a reload nor by a post that fails: it stays until the
// service has taken it.

import { tab } from "../service/tab.js";
import { button, h } from "./dom.js";
import { onEnter } from "./keys.js";

const MOST_ROWS_PIXELS = 220;

/** What is being sent, by the name of its draft: who has been elsewhere meanwhile finds it so. */
const underway = /** @type {Map<string, {text: string, sending: Promise<void>, isBack: boolean}>} */ (new Map());

/**
 * @typedef {object} Does
 * @property {(text: string) => Promise<void>} send
 * @property {(pressed: HTMLButtonElement) => Promise<void>} stop
 * @property {() => void} emptied a person has taken back what stood there
 */
/**
 * @param {Does} does
 * @param {string} draftName under which what is half written is kept in this tab
 */
export function composer(does, draftName) {
  const field = h("textarea", {
    rows: "1",
    placeholder: "Write a message",
    "aria-label": "Message",
    dir: "auto",
    oninput: written,
    onkeydown: onEnter(submit),
  });
  const sendButton = h("button", { type: "submit", class: "primary" }, "Send");
  const stopButton = button("Stop", stop, { class: "danger", hidden: true });
  const problem = h("p", { class: "problem small", role: "alert" });
  const onSubmit = (/** @type {Event} */ event) => {
    event.preventDefault();
    submit();
  };
  const row = h("div", { class: "composer-row" }, field, stopButton, sendButton);
  const element = h("form", { class: "composer", onsubmit: onSubmit }, problem, row);
  const whyName = `${draftName}.given-back`;
  let isSending = false;

  /** @param {MouseEvent} event */
  async function stop(event) {
    await does.stop(stopButton);
    if (event.detail === 0) field.focus(); // by a key: the button is gone soon
  }

  function written() {
    if (!field.value) {
      does.emptied();
      tell("");
    }
    keep();
  }

  function keep() {
    if (field.value) tab.keep(draftName, field.value);
    else tab.forget(draftName);
    fit();
  }

  /** Why this stands here, as long as it does. @param {string} why */
  function tell(why) {
    problem.textContent = why;
    if (why) tab.keep(whyName, why);
    else tab.forget(whyName);
  }

  function fit() {
    field.style.height = "auto";
    field.style.height = `${Math.min(field.scrollHeight + 2, MOST_ROWS_PIXELS)}px`;
  }

  function submit() {
    const text = field.value;
    if (isSending || !text.trim()) return;
    underway.set(draftName, { text, sending: does.send(text), isBack: false });
    settle();
  }

  /** What is sent stays until it was taken. */
  async function settle() {
    const mine = underway.get(draftName);
    if (!mine) return;
    isSending = sendButton.disabled = true;
    tell("");
    try {
      await mine.sending;
      if (!mine.isBack) clear(mine.text);
    } catch (error) {
      problem.textContent = `Not sent: ${/** @type {Error} */ (error).message}`;
    } finally {
      isSending = sendButton.disabled = false;
      if (underway.get(draftName) === mine) underway.delete(draftName);
    }
  }

  /** What was taken. @param {string} text */
  function clear(text) {
    if (tab.kept(draftName) === text) tab.forget(draftName);
    if (field.value === text) field.value = "";
    fit();
  }

  /** @param {string} text */
  function write(text) {
    field.value = text;
    keep();
  }

  field.value = tab.kept(draftName) ?? "";
  problem.textContent = tab.kept(whyName);
  requestAnimationFrame(fit);
  settle();
  return {
    element,
    focus: () => field.focus(),
    write,
    /** Put a message back that was not taken; nothing that stands there is written over. */
    giveBack(/** @type {string} */ text, /** @type {string} */ why) {
      const sent = underway.get(draftName);
      if (sent?.text === text) sent.isBack = true; // before anybody knew that it had been taken
      const isThere = `\n${field.value}\n`.includes(`\n${text}\n`);
      if (!isThere) write(field.value ? `${text}\n${field.value}` : text);
      tell(why);
    },
    /** @param {boolean} runs whether there is something to stop */
    running(runs) {
      stopButton.hidden = !runs;
    },
  };
}
