// Which messages may come back to this tab: those that it has said, until their turns have ended otherwise, and the
// newest of a session, whoever said it; each once.

import { hasEnded } from "../model/task.js";
import { tab } from "./tab.js";

/** @typedef {import("./sessions.js").Task} Task */

const MOST = 100; // of each; the oldest are forgotten

/** @param {string} sessionId */
export function givenBack(sessionId) {
  const said = keptSet(`playhead.said.${sessionId}`); // messages
  const told = keptSet(`playhead.given-back.${sessionId}`); // tasks
  return {
    /** This tab has said it. @param {string} messageId */
    said: said.add,
    /** What became of its message is known here. @param {Task} task */
    told: (task) => told.add(task.id),
    /**
     * Those that may have given a message back which nobody here knows of, the oldest first.
     * @param {Task[]} tasks of the session, the newest first
     * @param {Set<string>} staying messages of the conversation, as it was read behind these
     * @returns {Task[]}
     */
    of(tasks, staying) {
      const turns = tasks.filter((task) => task.kind === "turn" && hasEnded(task));
      const isBack = (/** @type {Task} */ turn) => turn.status === "failed" && !staying.has(turn.message_id ?? "");
      said.remove(turns.filter((turn) => !isBack(turn)).map((turn) => turn.message_id));
      const isMine = (/** @type {Task} */ turn) => turn === tasks[0] || said.has(turn.message_id);
      return turns.filter((turn) => isBack(turn) && isMine(turn) && !told.has(turn.id)).reverse();
    },
  };
}

/** @param {string} name */
function keptSet(name) {
  const all = () => /** @type {(string | null)[]} */ (JSON.parse(tab.kept(name) ?? "[]"));
  return {
    /** @param {string | null} id */
    has: (id) => all().includes(id),
    /** @param {string} id */
    add: (id) => tab.keep(name, JSON.stringify([...all(), id].slice(-MOST))),
    /** @param {(string | null)[]} ids */
    remove(ids) {
      const [before, gone] = [all(), new Set(ids)];
      const left = before.filter((id) => !gone.has(id));
      if (left.length < before.length) tab.keep(name, JSON.stringify(left));
    },
  };
}
