// What is to be said of a log as it is read here: that the event of the address is not in it, that this is not all of
// it, why nothing comes; and the means to read on.

import { positionText } from "../model/position.js";
import { button, h, say } from "./dom.js";
import { counted, number } from "./format.js";

/** @typedef {import("../model/position.js").Position} Position */
/**
 * @typedef {object} Reading
 * @property {import("../model/recording.js").LogEvent[]} events
 * @property {boolean} isBegunWithin whether what is before the first of them was not read
 * @property {boolean} isFull whether no more are kept
 * @property {Position | null} awaited an event that may come
 * @property {Position | null} absent an event that was looked for in vain
 * @property {string} refusal why there is nothing to follow
 */

/** @param {{goOn(): void, readAll(): void}} does */
export function logNotice(does) {
  const text = h("span");
  const goOn = button("Go on from here", does.goOn);
  const readAll = button("Read from the beginning", does.readAll);
  const element = h("div", { class: "log-notice row", role: "status" }, text, goOn, readAll);

  return {
    element,
    /** @param {Reading} reading */
    show(reading) {
      const sentences = sentencesOf(reading);
      element.hidden = !sentences.length;
      say(text, sentences.join(" "));
      goOn.hidden = !reading.isFull;
      readAll.hidden = !reading.isBegunWithin;
    },
  };
}

/** @param {Reading} reading */
function sentencesOf({ events, isBegunWithin, isFull, awaited, absent, refusal }) {
  const [first, last] = [events[0]?.position, events[events.length - 1]?.position];
  const sentences = [];
  if (refusal) sentences.push(refusal);
  if (absent) sentences.push(`There is no event ${positionText(absent)} in this log.`);
  if (awaited) sentences.push(`Event ${positionText(awaited)} is not there yet.`);
  if (isBegunWithin && first) sentences.push(`This begins at event ${number(first.n)}: what is before is not here.`);
  if (isFull)
    sentences.push(`${counted(events.length, "event")} are kept here; the log goes on behind ${positionText(last)}.`);
  return sentences;
}
