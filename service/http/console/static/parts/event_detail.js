// One event: where it stands, a link to it, and its JSON; of a long one the beginning, and all of it when asked for.

import { positionText } from "../model/position.js";
import { button, h, say } from "./dom.js";
import { jsonText, moment, size } from "./format.js";
import { toast } from "./toasts.js";

/** @typedef {import("../model/recording.js").LogEvent} LogEvent */

const FIRST_CHARACTERS = 16 * 1024;

/** @param {(position: string) => string} addressOf a position's */
export function eventDetail(addressOf) {
  const title = h("h2", { tabindex: "-1" });
  const facts = h("p", { class: "quiet-text mono" });
  const link = h("a", { class: "button" }, "Link");
  const text = h("pre", { class: "event-json", tabindex: "0", "aria-label": "The event's JSON" });
  const more = button("Show all of it", () => {
    say(text, whole);
    more.hidden = true;
  });
  const element = h(
    "section",
    { class: "card stack event-detail", "aria-label": "Event" },
    h("div", { class: "row spread" }, title, h("span", { class: "row" }, link, button("Copy link", copy))),
    facts,
    text,
    more,
  );
  let shown = /** @type {LogEvent | null} */ (null);
  let whole = "";

  async function copy() {
    try {
      await navigator.clipboard.writeText(link.href);
      toast("The link is copied.", "done");
    } catch {
      toast("The browser does not let it be copied: the link is in the address.");
    }
  }

  element.hidden = true;
  return {
    element,
    /** @param {LogEvent | null} event */
    show(event) {
      element.hidden = event === null;
      if (event === shown || event === null) return;
      shown = event;
      const position = positionText(event.position);
      whole = jsonText(event.chunk);
      say(title, `Event ${event.position.n}: ${event.chunk.type}`);
      say(facts, `${position} · ${moment(event.position.ms)} · ${size(event.bytes)}`);
      link.setAttribute("href", addressOf(position));
      say(text, whole.slice(0, FIRST_CHARACTERS));
      more.hidden = whole.length <= FIRST_CHARACTERS;
    },
    focus() {
      title.focus();
      element.scrollIntoView({ block: "nearest" });
    },
  };
}
