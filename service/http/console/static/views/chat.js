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
import { hasEnded } from "../model/task.js";
import { post, Refused } from "../service/api.js";
import { conversation } from "../service/conversation.js";
import { follow } from "../service/follow.js";
import { givenBack } from "../service/given_back.js";
import { polling } from "../service/polling.js";
import { whileSeen } from "../service/seen.js";
import { editMessage, postMessage, regenerate } from "../service/sessions.js";
import { unsent } from "../service/unsent.js";
import { newChat } from "./new_chat.js";

/** @typedef {import("../parts/view.js").Address} Address */
/** @typedef {import("../service/sessions.js").Task} Task */
/** @typedef {import("../parts/thread.js").Thread} Thread */

const LOOK_MILLISECONDS = 2000;
const KEPT_FOLDS = 20;

/** @param {Address} address @returns {import("../parts/view.js").View} */
export function chatView(address) {
  const list = sessionList();
  const place = h("section", { class: "chat-place", "aria-label": "Chat" });
  const element = h("div", { class: "chat" }, list.element, place);
  let chat = open(address);

  /** @param {Address} next */
  function open(next) {
    const sessionId = next.names[0] ?? null;
    const opened = sessionId === null ? newChat() : sessionChat(sessionId, list);
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
 * @param {ReturnType<typeof sessionList>} list
 */
function sessionChat(sessionId, list) {
  const stored = conversation(sessionId);
  const returning = givenBack(sessionId);
  const folds = /** @type {Map<string, import("../model/fold.js").Fold>} */ (new Map()); // what was followed, by task
  let fetching = /** @type {import("../service/follow.js").Following | null} */ (null); // what was given back
  let live = /** @type {Task | null} */ (null); // the task that is followed
  const others = new BroadcastChannel("playhead.sessions");
  let reader = /** @type {import("../service/follow.js").Following | null} */ (null);
  let looking = /** @type {import("../service/polling.js").Polling | null} */ (null);
  let isCut = false;
  let seen = "";
  let frame = 0;
  const kept = unsent(sessionId);
  let isClosed = false;

  const giveBack = (/** @type {string} */ text, /** @type {string} */ why) => field.giveBack(text, why);
  const thread = threadView({ edit, regenerate: answerAgain, giveBack, operations: livingOperationCard });
  const line = readerLine({ cut, resume });
  const field = composer({ send, stop, emptied: kept.forget }, `playhead.draft.${sessionId}`);
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
    const tasks = await stored.look(signal);
    const now = JSON.stringify(tasks.map((task) => [task.id, task.status]));
    if (now !== seen) {
      seen = now; // at once: who wants it read again meanwhile is heard
      await renew(tasks, signal).catch((error) => {
        seen = "";
        throw error;
      });
    }
    if (signal.aborted) return;
    choose(tasks);
    const back = returning.of(tasks, new Set(stored.messages().map(({ id }) => id)));
    const next = back.find((task) => !folds.has(task.id));
    if (next && !fetching) fetchBack(next);
  }

  /** @param {Task[]} tasks @param {AbortSignal} signal */
  async function renew(tasks, signal) {
    await read(signal);
    if (isStored(tasks)) live = null; // what is stored takes its place
    draw();
    list.now();
    if (await stored.learn(signal)) draw();
  }

  /** Whether nothing more comes of what is followed. */
  function isOver() {
    return !live || Boolean(folds.get(live.id)?.finish) || reader?.state() === "refused";
  }

  /** Whether what was read behind these has the whole of what is followed. @param {Task[]} tasks */
  function isStored(tasks) {
    const task = tasks.find(({ id }) => id === live?.id);
    return isOver() && (!task || hasEnded(task));
  }

  /** @param {AbortSignal} [signal] */
  async function read(signal) {
    await stored.read(signal);
    if (isClosed) return;
    head.show(stored.title());
    draw();
  }

  async function readEarlier() {
    const first = thread.element.firstElementChild;
    if (!(await stored.readEarlier()) || isClosed) return;
    draw();
    first?.scrollIntoView();
    if (await stored.learn()) draw();
  }

  /**
   * What was given back while nobody here followed it is in the task's log; one at a time, as a browser has few
   * connections.
   * @param {Task} task
   */
  function fetchBack(task) {
    const fold = emptyFold();
    folds.set(task.id, fold);
    const mine = (fetching = follow(task.id, {
      events(events) {
        for (const event of events) apply(fold, event.chunk);
        if (fold.finish) putBack(task, fold);
      },
      changed() {
        if (!["ended", "refused"].includes(mine.state())) return;
        fetching = null;
        looking?.now();
      },
    }));
  }

  /**
   * Follow what runs, or is next. What is followed already is read to its end, unless it only waits.
   * @param {Task[]} tasks
   */
  function choose(tasks) {
    const open = tasks.filter((task) => !hasEnded(task) && !folds.get(task.id)?.finish);
    const next = open.find((task) => task.status === "running") ?? open.findLast((task) => task.status === "queued");
    const waits = live && ["queued", "waiting"].includes(stored.tasks.get(live.id)?.status ?? "waiting");
    if (!next || (next.id === live?.id && !isOver())) return;
    if (waits || isOver()) begin(next);
  }

  /** @param {Task} task */
  function begin(task) {
    reader?.close();
    const fold = emptyFold();
    live = task;
    folds.set(task.id, fold);
    for (const old of [...folds.keys()].slice(0, -KEPT_FOLDS)) folds.delete(old);
    const mine = (reader = follow(task.id, {
      events(events) {
        for (const event of events) apply(fold, event.chunk);
        if (events.some(({ chunk }) => chunk.type === "steering-message")) readAgain();
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
    const status = /** @type {Task["status"]} */ (fold.status);
    stored.tasks.set(task.id, { ...task, status, error_type: fold.errorType });
    putBack(task, fold);
    told();
    over();
    looking?.now();
  }

  /** @param {Task} task @param {import("../model/fold.js").Fold} fold */
  function putBack(task, fold) {
    if (task.kind === "turn" && fold.status === "failed") returning.told(task);
    if (fold.bounced) field.giveBack(fold.bounced.content, `Given back: ${fold.bounced.error}`);
  }

  function over() {
    field.running(false);
    seen = "";
  }

  // --- what a person does ---

  /** @param {string} text */
  async function send(text) {
    const { message_id: messageId } = await postMessage(sessionId, text, kept.keyOf(text));
    returning.said(messageId);
    kept.forget();
    pin.pin();
    await lookAgain();
  }

  /** @param {string} messageId @param {string} text */
  async function edit(messageId, text) {
    await editMessage(sessionId, messageId, text);
    stored.forgetEarlier();
    await lookAgain();
    field.focus();
  }

  /** @param {HTMLButtonElement} pressed */
  function answerAgain(pressed) {
    return doing(pressed, async () => {
      await regenerate(sessionId);
      await lookAgain();
      field.focus();
    });
  }

  /** Something was taken, whether or not it can be seen at once. */
  async function lookAgain() {
    told();
    await readAgain();
    looking?.now();
  }

  function readAgain() {
    return read().catch(() => {});
  }

  /** @param {HTMLButtonElement} pressed */
  function stop(pressed) {
    const task = live;
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
    list.now();
  }

  /** @param {Error | null} error */
  function failed(error) {
    problem.textContent = error === null ? "" : error.message;
    if (error instanceof Refused && error.status === 404) {
      problem.textContent = "There is no such session.";
      list.drop(sessionId);
      looking?.stop();
      reader?.close();
      cancelAnimationFrame(frame);
      thread.close();
      thread.element.remove();
      head.element.hidden = line.element.hidden = field.element.hidden = true;
    }
  }

  // --- drawing, once a frame ---

  /** @returns {Thread} */
  function whole() {
    return { messages: stored.messages(), pending: stored.pending(), tasks: stored.tasks, folds, live };
  }

  function draw() {
    more.hidden = !stored.hasEarlier();
    thread.update(whole());
    line.show(reader, isCut);
  }

  function drawSoon() {
    frame ||= requestAnimationFrame(() => {
      frame = 0;
      if (!thread.grow(whole())) thread.update(whole());
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
      fetching?.close();
      unseen();
      cancelAnimationFrame(frame);
      pin.close();
      line.close();
      thread.close();
      others.close();
    },
  };
}
