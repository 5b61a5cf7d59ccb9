// What a chat asks of the service: sessions, their messages, and the tasks that answer them.

import { titleOf } from "../model/title.js";
import { ask, get, post, withQuery } from "./api.js";

/** @typedef {{id: string, role: "user" | "assistant", parts: any[], task_id: string, created_at: string}} Message */
/**
 * @typedef {object} Task
 * @property {string} id
 * @property {string} session_id
 * @property {"turn" | "operation"} kind
 * @property {string} status
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
 * Its newest tasks, the newest first.
 * @param {string} sessionId
 * @param {AbortSignal} [signal]
 * @returns {Promise<Task[]>}
 */
export async function newestTasks(sessionId, signal) {
  return (await get(withQuery("/tasks", { session: sessionId, limit: 50 }), signal)).tasks;
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
