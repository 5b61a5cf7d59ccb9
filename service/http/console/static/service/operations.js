// What is asked of the service about one operation.

import { get, post } from "./api.js";

/** @typedef {import("../model/operation.js").Operation} Operation */

/** @param {string} operationId */
function operationPath(operationId) {
  return `/operations/${encodeURIComponent(operationId)}`;
}

/** @param {string} operationId @param {AbortSignal} [signal] @returns {Promise<Operation>} */
export function readOperation(operationId, signal) {
  return get(operationPath(operationId), signal);
}

/** Tell the agent once more how it ended. @param {string} operationId */
export function redriveOperation(operationId) {
  return post(`${operationPath(operationId)}/redrive`, {});
}

/** Say something to it. @param {string} operationId @param {"approve" | "complete"} how @param {object} body */
export function tellOperation(operationId, how, body) {
  return post(`${operationPath(operationId)}/${how}`, body);
}

/** Nobody wants it any more; the agent is told. @param {string} operationId */
export function cancelOperation(operationId) {
  return post(`${operationPath(operationId)}/cancel`, {});
}
