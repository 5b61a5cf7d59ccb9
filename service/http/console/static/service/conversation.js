// A conversation as it is stored: its messages, those that wait, and the tasks that they belong to. The newest are
// read anew; what somebody has asked for before them stays in front of them for as long as it joins.

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
  let asked = 0;
  let answered = 0; // the last of those readings that has come
  let earlierTasks = /** @type {string | null} */ (null);
  const tasks = /** @type {Map<string, Task>} */ (new Map());

  /** @param {Task[]} found */
  function keep(found) {
    for (const task of found) tasks.set(task.id, task);
  }

  return {
    messages: () => messages,
    pending: () => pending,
    tasks,
    hasEarlier: () => earlier !== null,

    /**
     * @param {AbortSignal} [signal]
     * @returns {Promise<{title: string | null} | null>} null where what was asked for later is known already
     */
    async read(signal) {
      const mine = (asked += 1);
      const session = await readSession(sessionPath(sessionId), signal);
      if (mine < answered) return null;
      answered = mine;
      const joint = isLonger ? messages.findIndex((old) => old.id === session.messages[0]?.id) : -1;
      isLonger = joint > 0; // what has been set aside since is not among them
      if (!isLonger) earlier = session.earlier;
      messages = [...messages.slice(0, Math.max(0, joint)), ...session.messages];
      pending = session.pending;
      return session;
    },

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
      keep(page.tasks);
      return page.tasks;
    },

    /**
     * Read on until the task of every message is known.
     * @param {AbortSignal} [signal]
     * @returns {Promise<boolean>} whether one was not
     */
    async learn(signal) {
      const missing = new Set(messages.map((message) => message.task_id).filter((id) => !tasks.has(id)));
      const isOneMissing = missing.size > 0;
      for (let path = earlierTasks; path !== null && missing.size;) {
        const page = await get(path, signal);
        keep(page.tasks);
        for (const { id } of page.tasks) missing.delete(id);
        path = page.earlier;
      }
      return isOneMissing;
    },

    /** What was changed is no longer what stands before the newest. */
    forgetEarlier() {
      isLonger = false;
    },
  };
}
