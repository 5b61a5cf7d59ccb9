// A session's name, and what can be done with the session as a whole.

import { ask } from "../service/api.js";
import { deleteSession, sessionPath } from "../service/sessions.js";
import { confirmed } from "./confirmed.js";
import { button, h, say } from "./dom.js";
import { onEscape } from "./keys.js";
import { doing, toast } from "./toasts.js";

const MAX_TITLE_CHARACTERS = 200;
const UNTITLED = "Without a title";

/**
 * @param {string} sessionId
 * @param {() => void} changed
 */
export function sessionHead(sessionId, changed) {
  const path = sessionPath(sessionId);
  const title = h("h1", { class: "session-name", dir: "auto" }, "…");
  const field = h("input", { "aria-label": "Title", maxlength: MAX_TITLE_CHARACTERS, dir: "auto" });
  const save = h("button", { type: "submit", class: "primary" }, "Save");
  const form = h(
    "form",
    { class: "row", hidden: true, onsubmit: submit, onkeydown: onEscape(end) },
    field,
    save,
    button("Leave it", end),
  );
  const rename = button("Rename", begin, { class: "quiet" });
  const remove = confirmed("Delete", "Delete it for good?", deleted, { class: "quiet" });
  const element = h("header", { class: "chat-head row" }, title, form, rename, remove);

  function begin() {
    field.value = title.textContent === UNTITLED ? "" : (title.textContent ?? "");
    form.hidden = false;
    title.hidden = rename.hidden = true;
    field.focus();
  }

  function end() {
    form.hidden = true;
    title.hidden = rename.hidden = false;
    rename.focus();
  }

  /** @param {Event} event */
  function submit(event) {
    event.preventDefault();
    doing(save, async () => {
      const text = field.value.trim();
      await ask("PATCH", path, { body: { title: text || null } });
      say(title, text || UNTITLED);
      end();
      changed();
    });
  }

  async function deleted() {
    try {
      await deleteSession(sessionId);
      changed();
      if (element.isConnected) location.hash = "#/chat"; // and not from where somebody has gone meanwhile
    } catch (error) {
      toast(/** @type {Error} */ (error).message);
    }
  }

  return {
    element,
    /** @param {string | null} name */
    show: (name) => say(title, name ?? UNTITLED),
  };
}
