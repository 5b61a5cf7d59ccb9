// Asking the service: JSON in and out, with the credential that was given to this page, if one was. The credential is
// kept in this tab alone, for as long as it is open. Its answers also say what time it is there.

import { tab } from "./tab.js";

const CREDENTIAL = "playhead.credential";
const ANSWER_MILLISECONDS = 20_000;
const MOST_DETAIL = 500; // characters; what is longer is no sentence

/** The service's answer that says what is wrong. */
export class Refused extends Error {
  /** @param {number} status @param {any} problem */
  constructor(status, problem) {
    const fields = (problem?.errors ?? []).map((/** @type {any} */ each) => `${each.field}: ${each.message}`);
    super([problem?.detail ?? `The service answers ${status}.`, ...fields].join(" "));
    this.status = status;
    /** @type {string} */
    this.errorType = problem?.error_type ?? "unexpected_error";
    this.problem = problem;
  }
}

/** No answer came. */
class Unreachable extends Error {
  constructor() {
    super("The service does not answer.");
  }
}

/** @type {() => void} */
let whenUnauthenticated = () => {};

/** Say what is done where a credential is asked for. @param {() => void} handler */
export function onUnauthenticated(handler) {
  whenUnauthenticated = handler;
}

/** @param {string | null} credential an API key or a token; null: none */
export function useCredential(credential) {
  if (credential) tab.keep(CREDENTIAL, credential);
  else tab.forget(CREDENTIAL);
}

export function hasCredential() {
  return tab.kept(CREDENTIAL) !== null;
}

let ahead = 0; // milliseconds that the service's clock is ahead of this one, as far as is known

/** What time it is at the service, in milliseconds since 1970: what it dates is compared with this. */
export function now() {
  return Date.now() + ahead;
}

/**
 * An answer was dated, to the second, between asking and now: a clock that can be right is taken to be.
 * @param {Response} answer
 * @param {number} asked when, on this clock
 */
function compareClocks({ headers }, asked) {
  const dated = Date.parse(headers.get("Date") ?? "");
  if (!Number.isNaN(dated)) ahead = Math.min(Math.max(ahead, dated - Date.now()), dated + 1000 - asked);
}

/** What a request has to show. @returns {Record<string, string>} */
export function credentialHeaders() {
  const credential = tab.kept(CREDENTIAL);
  return credential === null ? {} : { Authorization: `Bearer ${credential}` };
}

/** A name for a request, by which a repeat is known: random, also where a page is not served safely. */
export function newKey() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Where a path of the service is for this page, which may lie behind a prefix. @param {string} path */
export function urlOf(path) {
  return new URL(`.${path}`, document.baseURI).href;
}

/**
 * A path with a query of what is set.
 * @param {string} path
 * @param {Record<string, string | number | null | undefined>} query
 */
export function withQuery(path, query) {
  const given = Object.entries(query).filter(([, value]) => value !== null && value !== undefined && value !== "");
  const text = new URLSearchParams(given.map(([name, value]) => [name, String(value)])).toString();
  return text ? `${path}?${text}` : path;
}

/**
 * Ask; the answer as it came. Throws Refused, Unreachable; AbortError where `signal` said so.
 * @param {string} method
 * @param {string} path
 * @param {{body?: unknown, headers?: Record<string, string>, signal?: AbortSignal, milliseconds?: number}} [options]
 */
export async function ask(method, path, { body, headers = {}, signal, milliseconds = ANSWER_MILLISECONDS } = {}) {
  const limit = AbortSignal.timeout(milliseconds);
  /** @type {Record<string, string>} */
  const given = body === undefined ? {} : { "Content-Type": "application/json" };
  const asked = Date.now();
  let response;
  try {
    response = await fetch(urlOf(path), {
      method,
      headers: { ...credentialHeaders(), ...given, ...headers },
      body: body === undefined ? null : JSON.stringify(body),
      signal: signal ? AbortSignal.any([signal, limit]) : limit,
      redirect: "error",
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Unreachable();
  }
  compareClocks(response, asked);
  if (!response.ok) throw await refusal(response);
  return response;
}

/** What an answer that is no good says: as JSON, or in a sentence. @param {Response} response */
export async function refusal(response) {
  const text = await response.text().catch(() => "");
  const isSentence = response.headers.get("Content-Type")?.startsWith("text/plain") && text.length <= MOST_DETAIL;
  const refused = new Refused(response.status, isSentence && text ? { detail: text } : parsed(text));
  if (response.status === 401) whenUnauthenticated();
  return refused;
}

/** @param {string} text @returns {any} null where it is no JSON */
function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

/** Ask for JSON; null where there is no content. @type {(...given: Parameters<typeof ask>) => Promise<any>} */
async function askJson(...given) {
  const response = await ask(...given);
  try {
    return response.status === 204 ? null : await response.json();
  } catch {
    throw new Unreachable();
  }
}

/** @param {string} path @param {AbortSignal} [signal] @returns {Promise<any>} */
export function get(path, signal) {
  return askJson("GET", path, { signal });
}

/** @param {string} path @param {unknown} [body] @param {Record<string, string>} [headers] @returns {Promise<any>} */
export function post(path, body, headers) {
  return askJson("POST", path, { body, headers });
}
