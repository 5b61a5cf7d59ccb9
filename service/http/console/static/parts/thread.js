// A conversation: what is stored of it, in its order, and behind that the answer that is under way. Every message keeps
// its element for as long as it is there, whether it grows, ends or is stored meanwhile.

import { tab } from "../service/tab.js";
import { button, h, say } from "./dom.js";
import { onEnter, onEscape } from "./keys.js";
import { clock } from "./format.js";
import { messageView } from "./message_view.js";

/** @typedef {import("../model/fold.js").Fold} Fold */
/** @typedef {import("../service/sessions.js").Message} Message */
/** @typedef {import("../service/sessions.js").Task} Task */
/**
 * @typedef {object} Thread what is to be seen
 * @property {Message[]} messages
 * @property {{id: string, parts: any[], created_at: string}[]} pending
 * @property {Map<string, Fold>} folds what was followed, by task
 * @property {Task | null} live the task that is followed
 * @property {Map<string, Task>} tasks
 */
/**
 * @typedef {object} Acts
 * @property {(messageId: string, text: string) => Promise<void>} edit
 * @property {(pressed: HTMLButtonElement) => void} regenerate
 * @property {(text: string, why: string) => void} giveBack what was written where nothing can be written any more
 * @property {import("./message_view.js").OperationParts} operations
 */
/** @typedef {{key: string, kind: "user" | "assistant" | "pending" | "end", [field: string]: any}} Entry */
/** @typedef {{element: HTMLElement, update(entry: Entry): void, gone?(): void, close(): void}} EntryView */

/** @param {Acts} acts */
export function threadView(acts) {
  const element = h("div", { class: "thread", role: "log", "aria-live": "off", "aria-label": "Conversation" });
  const views = /** @type {Map<string, EntryView>} */ (new Map());

  return {
    element,
    /** @param {Thread} thread */
    update(thread) {
      const entries = entriesOf(thread);
      const wanted = new Set(entries.map((entry) => entry.key));
      for (const [key, view] of views) {
        if (!wanted.has(key)) remove(key, view);
      }
      let before = /** @type {ChildNode | null} */ (element.firstChild);
      for (const entry of entries) {
        const view = views.get(entry.key) ?? made(entry);
        view.update(entry);
        if (view.element === before) before = before.nextSibling;
        else element.insertBefore(view.element, before);
      }
    },
    /** Only the answer that is under way has grown; what is stored is shown as it is stored. @param {Thread} thread */
    grow(thread) {
      const entry = liveEntry(thread);
      if (entry && thread.messages.some(({ id }) => id === entry.key)) return true;
      const view = entry && views.get(entry.key);
      if (!view) return false;
      view.update(entry);
      return true;
    },
    close() {
      for (const view of views.values()) view.close();
    },
  };

  /** @param {Entry} entry */
  function made(entry) {
    const view = entry.kind === "assistant" ? answerView(acts) : entry.kind === "end" ? endView() : ownView(acts);
    views.set(entry.key, view);
    return view;
  }

  /** @param {string} key @param {EntryView} view */
  function remove(key, view) {
    view.gone?.();
    view.close();
    view.element.remove();
    views.delete(key);
  }
}

/** @param {Thread} thread @returns {Entry[]} */
function entriesOf(thread) {
  const stored = new Set(thread.messages.map((message) => message.id));
  const answered = new Set(thread.messages.filter((each) => each.role === "assistant").map((each) => each.task_id));
  const entries = /** @type {Entry[]} */ ([]);
  const isIdle = thread.live === null;
  const lastAnswer = thread.messages.findLast((message) => message.role === "assistant");
  for (const message of thread.messages) {
    if (message.role === "user") {
      entries.push({ key: message.id, kind: "user", message, mayChange: isIdle });
      const task = thread.tasks.get(message.task_id);
      const isLast = thread.messages.findLast((each) => each.task_id === message.task_id) === message;
      if (task && isLast && !answered.has(task.id)) entries.push(...endOf(task, thread));
    } else {
      const task = thread.tasks.get(message.task_id);
      const notes = (thread.folds.get(message.task_id)?.notes ?? []).filter((note) => note.kind !== "steering");
      const mayChange = isIdle && message === lastAnswer && task?.kind !== "operation";
      entries.push({
        key: message.id,
        kind: "assistant",
        message,
        shown: { parts: message.parts, notes },
        task,
        mayChange,
      });
      if (task) entries.push(...endOf(task, thread, true));
    }
  }
  const live = liveEntry(thread);
  if (live && !stored.has(live.key)) entries.push(live);
  for (const message of thread.pending) entries.push({ key: message.id, kind: "pending", message, mayChange: false });
  return entries;
}

/**
 * The answer that is under way, or is over and not read yet as it is stored.
 * @param {Thread} thread
 * @returns {Entry | null}
 */
function liveEntry({ live, folds, messages, tasks }) {
  const fold = live && folds.get(live.id);
  if (!live || !fold?.messageId || (fold.finish && fold.parts.length === 0)) return null;
  const stored = new Set(messages.map((message) => message.id));
  const notes = fold.notes.filter((note) => note.kind !== "steering" || !stored.has(note.data.messageId));
  const shown = { parts: fold.parts, notes };
  return { key: fold.messageId, kind: "assistant", shown, task: tasks.get(live.id) ?? live, isLive: !fold.finish };
}

/**
 * How a task ended that did not end well.
 * @param {Task} task
 * @param {Thread} thread
 * @param {boolean} [isAnswered] the way to its log stands below the answer
 * @returns {Entry[]}
 */
function endOf(task, { folds }, isAnswered = false) {
  if (task.status !== "failed" && task.status !== "cancelled") return [];
  const told = folds.get(task.id)?.errorText?.replace(/^\[code:\w+\] /, "");
  const why = task.status === "cancelled" ? "Cancelled." : `Failed (${task.error_type}). ${told ?? ""}`;
  return [{ key: `end ${task.id}`, kind: "end", task, why, isAnswered }];
}

/** A person's message; one that waits may still be read by the answer that is under way. @param {Acts} acts */
function ownView(acts) {
  const text = h("div", { class: "own-text pre-line", dir: "auto" });
  const about = h("span", { class: "quiet-text" });
  const edit = button("Edit", begin, { class: "quiet" });
  const foot = h("div", { class: "row entry-foot" }, about, edit);
  const element = h("article", { class: "entry own", "aria-label": "Your message" }, text, foot);
  let entry = /** @type {Entry | null} */ (null);
  let form = /** @type {HTMLFormElement | null} */ (null);

  const draftName = () => `playhead.edit.${entry?.message.id}`;
  const said = () => entry?.message.parts.map((/** @type {any} */ part) => part.text ?? "(a file)").join("\n") ?? "";

  function begin() {
    const field = h("textarea", {
      "aria-label": "Your message, changed",
      rows: "3",
      dir: "auto",
      oninput: () => tab.keep(draftName(), field.value),
      onkeydown: onEnter(() => form?.requestSubmit()),
    });
    const problem = h("p", { class: "problem small", role: "alert" });
    field.value = tab.kept(draftName()) ?? said();
    const save = h("button", { type: "submit", class: "primary" }, "Send again");
    const hint = h("span", { class: "quiet-text" }, "What came after it is set aside.");
    form = h(
      "form",
      { class: "stack" },
      field,
      problem,
      h("div", { class: "row" }, save, button("Leave it", leave), hint),
    );
    form.addEventListener("keydown", onEscape(leave));
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      save.disabled = true;
      try {
        await acts.edit(entry?.message.id, field.value);
        end();
      } catch (error) {
        problem.textContent = /** @type {Error} */ (error).message;
        save.disabled = false;
      }
    });
    text.hidden = foot.hidden = true;
    element.append(form);
    field.focus();
  }

  function leave() {
    end();
    edit.focus();
  }

  function end() {
    tab.forget(draftName());
    form?.remove();
    form = null;
    text.hidden = foot.hidden = false;
  }

  return {
    element,
    /** @param {Entry} next */
    update(next) {
      entry = next;
      element.classList.toggle("waits", next.kind === "pending");
      say(text, said());
      say(about, next.kind === "pending" ? "Waits until the answer lets it in" : clock(next.message.created_at));
      edit.hidden = next.kind === "pending";
      edit.disabled = !next.mayChange;
    },
    gone() {
      const changed = form?.querySelector("textarea")?.value;
      if (changed && changed !== said())
        acts.giveBack(changed, "The message that you were changing has been set aside.");
      if (form) end();
    },
    close() {},
  };
}

/** The agent's message. @param {Acts} acts */
function answerView(acts) {
  const view = messageView(acts.operations);
  const about = h("span", { class: "quiet-text" });
  const log = h("a", { class: "quiet-text" }, "Log");
  const again = button("Answer again", () => acts.regenerate(again), { class: "quiet" });
  const kind = h("p", { class: "entry-kind quiet-text" }, "Follow-up");
  const foot = h("div", { class: "row entry-foot" }, about, log, again);
  const element = h("article", { class: "entry answer", "aria-label": "Answer" }, kind, view.element, foot);
  return {
    element,
    /** @param {Entry} entry */
    update(entry) {
      element.classList.toggle("live", entry.isLive === true);
      element.setAttribute("aria-busy", String(entry.isLive === true));
      kind.hidden = entry.task?.kind !== "operation";
      view.update(entry.shown);
      say(about, entry.message ? clock(entry.message.created_at) : "…");
      log.href = `#/tasks/${entry.task?.id ?? entry.message.task_id}`;
      again.hidden = !entry.mayChange;
    },
    close: () => view.close(),
  };
}

function endView() {
  const why = h("span", { dir: "auto" });
  const log = h("a", null, "Log");
  const element = h("p", { class: "entry ending row" }, why, log);
  return {
    element,
    /** @param {Entry} entry */
    update({ why: text, task, isAnswered }) {
      say(why, text);
      log.hidden = isAnswered;
      element.dataset.status = task.status;
      log.href = `#/tasks/${task.id}`;
    },
    close() {},
  };
}
