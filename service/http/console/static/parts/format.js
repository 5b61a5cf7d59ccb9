// How numbers, times and values are shown.

import { now } from "../service/api.js";

const HIDDEN = /[\p{Cf}\p{Cc}\p{Default_Ignorable_Code_Point}\u2028\u2029\u2800]/gu;
const NUMBERS = new Intl.NumberFormat("en"); // made once: that is what takes long
const KEPT = new Set(["\n", "\t"]);

/**
 * A JSON value as text, in which what would not be seen, or would turn the reading around, stands as its escape: what a
 * person agrees to is what is there.
 * @param {unknown} value
 */
export function jsonText(value) {
  return reveal(JSON.stringify(value, null, 2) ?? "");
}

/** A text in which what would not be seen stands as its escape. @param {string} text */
export function reveal(text) {
  return text.replace(HIDDEN, (character) => (KEPT.has(character) ? character : escapeOf(character)));
}

/** @param {string} character */
function escapeOf(character) {
  return [...Array(character.length).keys()]
    .map((place) => `\\u${character.charCodeAt(place).toString(16).padStart(4, "0")}`)
    .join("");
}

/** @param {number} count @param {string} one @param {string} [many] */
export function counted(count, one, many = `${one}s`) {
  return `${number(count)} ${count === 1 ? one : many}`;
}

/** @param {number} value */
export function number(value) {
  return NUMBERS.format(value);
}

/** A stretch of time, as short as it can be said. @param {number} milliseconds */
export function duration(milliseconds) {
  if (milliseconds < 1000) return `${Math.round(milliseconds)} ms`;
  const seconds = milliseconds / 1000;
  if (seconds < 60) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${Math.floor(seconds % 60)} s`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  return `${Math.floor(seconds / 86_400)} d ${Math.floor((seconds % 86_400) / 3600)} h`;
}

/** How long ago a moment was. @param {string | null} moment RFC 3339 */
export function age(moment) {
  return moment === null ? "–" : duration(Math.max(0, now() - Date.parse(moment)));
}

/** A moment on this person's clock. @param {string | number | null} moment RFC 3339, or milliseconds since 1970 */
export function clock(moment) {
  if (moment === null) return "–";
  return new Date(moment).toLocaleTimeString("en-GB", { hour12: false });
}

/** A moment with its day. @param {string | number | null} moment */
export function moment(moment) {
  if (moment === null) return "–";
  const date = new Date(moment);
  const day = date.toDateString() === new Date(now()).toDateString() ? "" : `${date.toLocaleDateString("en-CA")} `;
  return `${day}${date.toLocaleTimeString("en-GB", { hour12: false })}`;
}

/** The end of an id, by which a person tells it from others. @param {string} id */
export function shortId(id) {
  return id.length > 10 ? `…${id.slice(-8)}` : id;
}

/** @param {number} bytes */
export function size(bytes) {
  if (bytes < 1024) return `${bytes} B`;
  if (bytes < 1024 * 1024) return `${(bytes / 1024).toFixed(1)} KiB`;
  return `${(bytes / 1024 / 1024).toFixed(1)} MiB`;
}
