// The key under which something is sent, for as long as nobody knows whether it was taken: who sends the same again,
// behind a reload or after having been elsewhere, sends it with the same key, so that it is said once.

import { newKey } from "./api.js";
import { tab } from "./tab.js";

/** @param {string} name what it is kept under, in this tab */
export function unsent(name) {
  const place = `playhead.unsent.${name}`;
  return {
    /** @param {string} text @returns {string} */
    keyOf(text) {
      const before = JSON.parse(tab.kept(place) ?? "null");
      if (before?.text === text) return before.key;
      const key = newKey();
      tab.keep(place, JSON.stringify({ text, key }));
      return key;
    },
    /** It was taken, or given up: the same text is something new from now on. */
    forget: () => tab.forget(place),
  };
}
