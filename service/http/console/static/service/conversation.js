// A conversation as it is stored: its messages, those that wait, and the tasks that they belong to. The newest are
// read anew; what somebody has asked for before them stays in front of them for as long as it joins.

import { inOrder } from "../model/readings.js";
import { hasEnded } from "../model/task.js";
import { get } from "./api.js";
import { newestTasks, readSession, sessionPath } from "./sessions.js";

/** @typedef {import("./sessions.js").Message} Message */
/** @typedef {import("./sessions.js").Task} Task */

/** @param {string} sessionId */
export function conversation(sessionId) {
  let messages = /** @type {Message[]} */ ([]);
  let pending = /** @type {{id: string, parts: any[], created_at: string}[]} */ ([]);
  let earlier = /** @type {string | null} */ (null);
  let isLonger = false; // than the newest page
  let title = /** @type {string | null} */ (null);
  let earlierTasks = /** @type {string | null} */ (null);
  const tasks = /** @type {Map<string, Task>} */ (new Map());
  const unknown = /** @type {Set<string>} */ (new Set()); // tasks that were looked for in vain: never again

  /** @param {any} session its newest page */
  function take(session) {
    const joint = isLonger ? messages.findIndex((old) => old.id === session.messages[0]?.id) : -1;
    isLonger = joint > 0; // what has been set aside since is not among them
    if (!isLonger) earlier = session.earlier;
    messages = [...messages.slice(0, Math.max(0, joint)), ...session.messages];
    ({ pending, title } = session);
  }

  /** @param {Task[]} found */
  function keep(found) {
    for (const task of found) tasks.set(task.id, task);
  }

  return {
    title: () => title,
    messages: () => messages,
    pending: () => pending,
    tasks,
    hasEarlier: () => earlier !== null,

    /** The newest of it. */
    read: inOrder((/** @type {AbortSignal | undefined} */ signal) => readSession(sessionPath(sessionId), signal), take),

    /** @returns {Promise<boolean>} whether they join what is known */
    async readEarlier() {
      const path = earlier;
      if (path === null) return false;
      const page = await readSession(path);
      if (path !== earlier) return false;
      messages = [...page.messages, ...messages];
      earlier = page.earlier;
      isLonger = true;
      return true;
    },

    /** The newest tasks, and all that run or are queued, the newest first. @param {AbortSignal} signal */
    async look(signal) {
      const page = await newestTasks(sessionId, signal);
      earlierTasks = page.earlier;
      for (const [id, task] of tasks) if (!hasEnded(task)) tasks.delete(id); // else it may have ended unseen
      keep(page.tasks);
      return page.tasks;
    },

    /**
     * Read on until the task of every message is known.
     * @param {AbortSignal} [signal]
     * @returns {Promise<boolean>} whether one was not
     */
    async learn(signal) {
      const wanted = messages.map((message) => message.task_id);
      const missing = new Set(wanted.filter((id) => !tasks.has(id) && !unknown.has(id)));
      const isOneMissing = missing.size > 0;
      for (let path = earlierTasks; path !== null && missing.size;) {
        const page = await get(path, signal);
        keep(page.tasks);
        for (const { id } of page.tasks) missing.delete(id);
        path = page.earlier;
      }
      for (const id of missing) unknown.add(id);
      return isOneMissing;
    },

    /** What was changed is no longer what stands before the newest. */
    forgetEarlier() {
      isLonger = false;
    },
  };
}
