// What a chat asks of the service: sessions, their messages, and the tasks that answer them.

import { titleOf } from "../model/title.js";
import { ask, get, post, withQuery } from "./api.js";

/** @typedef {{id: string, role: "user" | "assistant", parts: any[], task_id: string, created_at: string}} Message */
/**
 * @typedef {object} Task
 * @property {string} id
 * @property {string} session_id
 * @property {"turn" | "operation"} kind
 * @property {import("../model/task.js").Task["status"]} status
 * @property {string | null} message_id
 * @property {string | null} operation_id
 * @property {string} answer_id
 * @property {string | null} error_type
 */

/**
 * A new session that is called by what is said first. A repeat with the same key is the same session.
 * @param {string} text
 * @param {string} key
 * @returns {Promise<string>} its id
 */
export async function createSession(text, key) {
  return (await post("/sessions", { title: titleOf(text) }, { "Idempotency-Key": key })).id;
}

/** @param {string} sessionId */
export function sessionPath(sessionId) {
  return `/sessions/${encodeURIComponent(sessionId)}`;
}

/** @param {string} path of the session, or of an earlier page of it @param {AbortSignal} [signal] */
export function readSession(path, signal) {
  return get(path, signal);
}

/**
 * Its newest tasks, the newest first, and all that run or are queued; `earlier` is the path of those before the newest.
 * @param {string} sessionId
 * @param {AbortSignal} [signal]
 * @returns {Promise<{tasks: Task[], earlier: string | null}>}
 */
export async function newestTasks(sessionId, signal) {
  const pathOf = (/** @type {string | null} */ status) =>
    withQuery("/tasks", { session: sessionId, limit: 50, status });
  const newest = await get(pathOf(null), signal);
  if (newest.earlier === null) return newest;
  const open = await Promise.all(["running", "queued"].map((status) => get(pathOf(status), signal)));
  const known = new Set(newest.tasks.map((/** @type {Task} */ task) => task.id));
  const older = open.flatMap((page) => page.tasks).filter((task) => !known.has(task.id));
  return { tasks: [...newest.tasks, ...older], earlier: newest.earlier };
}

/** @param {string} sessionId */
export async function deleteSession(sessionId) {
  await ask("DELETE", sessionPath(sessionId));
}

/**
 * Say something. A repeat with the same key changes nothing.
 * @param {string} sessionId
 * @param {string} text
 * @param {string} key
 * @returns {Promise<{task_id: string, message_id: string, status: "accepted" | "pending"}>}
 */
export function postMessage(sessionId, text, key) {
  return post(`${sessionPath(sessionId)}/messages`, { text }, { "Idempotency-Key": key });
}

/** Say this instead of an earlier message; what came after it is set aside. */
export function editMessage(
  /** @type {string} */ sessionId,
  /** @type {string} */ messageId,
  /** @type {string} */ text,
) {
  const message = { id: messageId, role: "user", parts: [{ type: "text", text }] };
  return taken({ id: sessionId, trigger: "submit-message", messageId, messages: [message] });
}

/** Have the last message answered once more. @param {string} sessionId */
export function regenerate(sessionId) {
  return taken({ id: sessionId, trigger: "regenerate-message", messages: [] });
}

/** It is taken as soon as an answer begins; the log is followed elsewhere. @param {any} body */
async function taken(body) {
  const answer = await ask("POST", "/api/chat", { body });
  await answer.body?.cancel();
}
