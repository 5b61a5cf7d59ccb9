// The message as it was behind an event of its log: its end, where it is long.

import { excerptOf } from "../model/excerpt.js";
import { h, say } from "./dom.js";
import { counted, number } from "./format.js";
import { messageView } from "./message_view.js";

/** @typedef {import("../model/recording.js").Recording} Recording */

const DRAW_MILLISECONDS = 60;

export function messageThen() {
  const message = messageView();
  const left = h("p", { class: "quiet-text" });
  const then = h("h2", null);
  const element = h(
    "section",
    { class: "card stack log-message", "aria-label": "Message as it was then" },
    then,
    left,
    h("div", { class: "log-message-end", tabindex: "0", role: "group", "aria-label": "Message" }, message.element),
  );
  let wanted = /** @type {{recording: Recording, shown: number} | null} */ (null);
  let drawnAt = 0;
  let timer = /** @type {ReturnType<typeof setTimeout> | undefined} */ (undefined);

  function draw() {
    timer = undefined;
    if (!wanted) return;
    drawnAt = performance.now();
    const { recording, shown } = wanted;
    const event = recording.events[shown - 1];
    const { fold, parts, characters } = excerptOf(recording.foldAt(shown));
    message.update(fold);
    say(then, event ? `The message at event ${number(event.position.n)}` : "The message");
    left.hidden = !parts && !characters;
    if (!left.hidden)
      say(left, `Its end: ${counted(parts, "part")} and ${counted(characters, "character")} are before it.`);
  }

  return {
    element,
    /**
     * Soon, and once: while somebody hurries through the log it is not drawn for each event.
     * @param {Recording} recording
     * @param {number} shown
     */
    update(recording, shown) {
      wanted = { recording, shown };
      timer ??= setTimeout(draw, Math.max(0, drawnAt + DRAW_MILLISECONDS - performance.now()));
    },
    close() {
      clearTimeout(timer);
      message.close();
    },
  };
}
