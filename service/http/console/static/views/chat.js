// The chat: sessions, a conversation that is followed live, and where its reader is in the log.
//
// What is stored is read from the service; of the task that runs, the log is followed. Which task that is, is asked
// every now and then and whenever something has happened: other tabs, follow-ups and other people begin tasks, too.
// Everything but the log is a hint, so that losing it costs a moment.

import { composer } from "../parts/composer.js";
import { button, fill, h } from "../parts/dom.js";
import { livingOperationCard } from "../parts/operation_card.js";
import { pinned } from "../parts/pinned.js";
import { readerLine } from "../parts/reader_line.js";
import { sessionHead } from "../parts/session_head.js";
import { sessionList } from "../parts/session_list.js";
import { threadView } from "../parts/thread.js";
import { doing, toast } from "../parts/toasts.js";
import { emptyFold, apply } from "../model/fold.js";
import { post, Refused } from "../service/api.js";
import { follow } from "../service/follow.js";
import { polling } from "../service/polling.js";
import { whileSeen } from "../service/seen.js";
import { editMessage, newestTasks, postMessage, readSession, regenerate, sessionPath } from "../service/sessions.js";
import { tab } from "../service/tab.js";
import { unsent } from "../service/unsent.js";
import { newChat } from "./new_chat.js";

/** @typedef {import("../parts/view.js").Address} Address */
/** @typedef {import("../service/sessions.js").Task} Task */
/** @typedef {import("../parts/thread.js").Thread} Thread */

const LOOK_MILLISECONDS = 2000;
const KEPT_FOLDS = 20;
const GIVEN_BACK = "playhead.given-back."; // and a session: its last task whose message this tab gave back
const HAS_ENDED = new Set(["succeeded", "failed", "cancelled"]);

/** @param {Address} address @returns {import("../parts/view.js").View} */
export function chatView(address) {
  const list = sessionList();
  const place = h("section", { class: "chat-place", "aria-label": "Chat" });
  const element = h("div", { class: "chat" }, list.element, place);
  let chat = open(address);

  /** @param {Address} next */
  function open(next) {
    const sessionId = next.names[0] ?? null;
    const opened = sessionId === null ? newChat() : sessionChat(sessionId, list.now);
    list.show(sessionId);
    fill(place, opened.element);
    opened.begin();
    return opened;
  }

  return {
    element,
    title: "Chat",
    go(next) {
      chat.close();
      chat = open(next);
      return true;
    },
    close() {
      chat.close();
      list.close();
    },
  };
}

/**
 * One conversation.
 * @param {string} sessionId
 * @param {() => void} listChanged
 */
function sessionChat(sessionId, listChanged) {
  const state = /** @type {Thread} */ ({ messages: [], pending: [], folds: new Map(), live: null, tasks: new Map() });
  const others = new BroadcastChannel("playhead.sessions");
  let reader = /** @type {import("../service/follow.js").Following | null} */ (null);
  let looking = /** @type {import("../service/polling.js").Polling | null} */ (null);
  let isCut = false;
  let seen = "";
  let asked = 0;
  let answered = 0; // the last of those readings that has come
  let earlier = /** @type {string | null} */ (null);
  let older = /** @type {Thread["messages"]} */ ([]);
  let frame = 0;
  const kept = unsent(sessionId);
  let isClosed = false;

  const thread = threadView({ edit, regenerate: answerAgain, operations: livingOperationCard });
  const line = readerLine({ cut, resume });
  const field = composer({ send, stop }, `playhead.draft.${sessionId}`);
  const head = sessionHead(sessionId, told);
  const unseen = whileSeen(() => (isCut ? null : reader));
  const more = button("Show what was before", () => doing(more, readEarlier), { hidden: true });
  const problem = h("p", { class: "problem", role: "alert" });
  const scroll = h("div", { class: "chat-scroll", tabindex: "0", "aria-label": "Messages", role: "region" });
  scroll.append(more, thread.element, problem);
  const pin = pinned(scroll, thread.element);
  const element = h("div", { class: "chat-column" }, head.element, scroll, line.element, field.element);

  // --- what is stored, and what runs ---

  /** @param {AbortSignal} signal */
  async function look(signal) {
    const tasks = await newestTasks(sessionId, signal);
    state.tasks = new Map(tasks.map((task) => [task.id, task]));
    const now = JSON.stringify(tasks.map((task) => [task.id, task.status]));
    if (now !== seen) {
      seen = now; // at once: who wants it read again meanwhile is heard
      await readStored(signal).catch((error) => {
        seen = "";
        throw error;
      });
      if (isStored(tasks)) state.live = null; // what is stored takes its place
      draw();
      listChanged();
    }
    if (signal.aborted) return;
    choose(tasks);
    const bounced = bouncedOf(tasks[0]);
    if (bounced && !state.live) begin(bounced);
  }

  /** Whether nothing more comes of what is followed. */
  function isOver() {
    return !state.live || Boolean(state.folds.get(state.live.id)?.finish) || reader?.state() === "refused";
  }

  /** Whether what was read behind these has the whole of what is followed. @param {Task[]} tasks */
  function isStored(tasks) {
    const task = tasks.find(({ id }) => id === state.live?.id);
    return isOver() && (!task || HAS_ENDED.has(task.status));
  }

  /**
   * A task whose message was given back before anybody here could follow it: its log has the message.
   * @param {Task | undefined} newest
   */
  function bouncedOf(newest) {
    if (newest?.kind !== "turn" || newest.status !== "failed" || state.folds.has(newest.id)) return null;
    const isTaken = state.messages.some((message) => message.id === newest.message_id);
    return isTaken || tab.kept(GIVEN_BACK + sessionId) === newest.id ? null : newest;
  }

  /** @param {AbortSignal} [signal] */
  async function readStored(signal) {
    const mine = (asked += 1);
    const session = await readSession(sessionPath(sessionId), signal);
    if (isClosed || mine < answered) return; // what was asked for later is shown already
    answered = mine;
    head.show(session);
    const joint = older.findIndex((old) => old.id === session.messages[0]?.id);
    older = joint < 0 ? [] : older.slice(0, joint); // what has been set aside since is not among them
    if (older.length === 0) earlier = session.earlier;
    more.hidden = earlier === null;
    state.messages = [...older, ...session.messages];
    state.pending = session.pending;
    draw();
  }

  async function readEarlier() {
    if (earlier === null) return;
    const path = earlier;
    const page = await readSession(path);
    if (isClosed || path !== earlier) return; // it would no longer join what is shown
    const first = thread.element.firstElementChild;
    older = [...page.messages, ...state.messages];
    earlier = page.earlier;
    more.hidden = earlier === null;
    state.messages = older;
    draw();
    first?.scrollIntoView();
  }

  /**
   * Follow what runs, or is next. What is followed already is read to its end, unless it only waits.
   * @param {Task[]} tasks
   */
  function choose(tasks) {
    const open = tasks.filter((task) => !HAS_ENDED.has(task.status) && !state.folds.get(task.id)?.finish);
    const next = open.find((task) => task.status === "running") ?? open.findLast((task) => task.status === "queued");
    const live = state.live;
    const waits = live && ["queued", "waiting"].includes(state.tasks.get(live.id)?.status ?? "");
    if (!next || (next.id === live?.id && !isOver())) return;
    if (waits || isOver()) begin(next);
  }

  /** @param {Task} task */
  function begin(task) {
    reader?.close();
    const fold = emptyFold();
    state.live = task;
    state.folds.set(task.id, fold);
    for (const old of [...state.folds.keys()].slice(0, -KEPT_FOLDS)) state.folds.delete(old);
    const mine = (reader = follow(task.id, {
      events(events) {
        for (const event of events) apply(fold, event.chunk);
        if (events.some(({ chunk }) => chunk.type === "steering-message")) readStored().catch(() => {});
        if (fold.finish) ended(task, fold);
        drawSoon();
      },
      changed() {
        if (reader !== mine) return;
        if (mine.state() === "refused") over(); // the next look sees what there is instead
        line.show(mine, isCut);
      },
      gap: (gap) => toast(`${gap.lost} events are missing from this log behind ${gap.requested}.`),
    }));
    field.running(true);
    draw();
  }

  /** @param {Task} task @param {import("../model/fold.js").Fold} fold */
  function ended(task, fold) {
    state.tasks.set(task.id, { ...task, status: fold.status, error_type: fold.errorType });
    if (fold.bounced) tab.keep(GIVEN_BACK + sessionId, task.id);
    if (fold.bounced) field.giveBack(fold.bounced.content, `Given back: ${fold.bounced.error}`);
    told();
    over();
    looking?.now();
  }

  function over() {
    field.running(false);
    seen = "";
  }

  // --- what a person does ---

  /** @param {string} text */
  async function send(text) {
    await postMessage(sessionId, text, kept.keyOf(text));
    kept.forget();
    pin.pin();
    told();
    await readStored().catch(() => {});
    looking?.now();
  }

  /** @param {string} messageId @param {string} text */
  async function edit(messageId, text) {
    await editMessage(sessionId, messageId, text);
    older = [];
    told();
    await readStored();
    looking?.now();
  }

  /** @param {HTMLButtonElement} pressed */
  function answerAgain(pressed) {
    return doing(pressed, async () => {
      await regenerate(sessionId);
      told();
      await readStored();
      looking?.now();
    });
  }

  /** @param {HTMLButtonElement} pressed */
  function stop(pressed) {
    const task = state.live;
    return doing(pressed, async () => task && post(`/tasks/${task.id}/cancel`));
  }

  function cut() {
    isCut = true;
    looking?.stop();
    reader?.cut();
    line.show(reader, isCut);
  }

  function resume() {
    isCut = false;
    looking?.stop();
    looking = polling(LOOK_MILLISECONDS, look, failed);
    reader?.resume();
    line.show(reader, isCut);
  }

  function told() {
    if (isClosed) return;
    others.postMessage(sessionId);
    listChanged();
  }

  /** @param {Error | null} error */
  function failed(error) {
    problem.textContent = error === null ? "" : error.message;
    if (error instanceof Refused && error.status === 404) {
      problem.textContent = "There is no such session.";
      looking?.stop();
      reader?.close();
      cancelAnimationFrame(frame);
      thread.close();
      thread.element.remove();
      head.element.hidden = line.element.hidden = field.element.hidden = true;
    }
  }

  // --- drawing, once a frame ---

  function draw() {
    thread.update(state);
    line.show(reader, isCut);
  }

  function drawSoon() {
    frame ||= requestAnimationFrame(() => {
      frame = 0;
      if (!thread.grow(state)) thread.update(state);
      line.show(reader, isCut);
    });
  }

  others.onmessage = (message) => {
    if (message.data === sessionId && !isCut) {
      seen = "";
      looking?.now();
    }
  };

  return {
    element,
    begin() {
      resume();
      queueMicrotask(field.focus); // it has to be on the page
    },
    close() {
      isClosed = true;
      looking?.stop();
      reader?.close();
      unseen();
      cancelAnimationFrame(frame);
      pin.close();
      line.close();
      thread.close();
      others.close();
    },
  };
}
