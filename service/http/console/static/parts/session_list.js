// The sessions, the newest first, as a list that is as wide as there is room for.

import { pages } from "../model/pages.js";
import { get } from "../service/api.js";
import { polling } from "../service/polling.js";
import { button, h, say } from "./dom.js";
import { moment } from "./format.js";
import { doing } from "./toasts.js";

/** @typedef {{id: string, title: string | null, status: "idle" | "busy", created_at: string}} ListedSession */

const LOOK_MILLISECONDS = 5000;
const FIRST = "/sessions?limit=30";

export function sessionList() {
  const list = h("ul", { class: "session-links" });
  const more = button("Earlier", () => doing(more, readEarlier), { class: "quiet", hidden: true });
  const newLink = h("a", { class: "button", href: "#/chat" }, "New chat");
  const fold = h("details", { class: "session-fold", open: matchMedia("(min-width: 900px)").matches });
  fold.append(h("summary", null, "Sessions"), newLink, list, more);
  const element = h("nav", { class: "session-list", "aria-label": "Sessions" }, fold);
  const rows = /** @type {Map<string, ReturnType<typeof rowOf>>} */ (new Map());
  const listed = /** @type {ReturnType<typeof pages<ListedSession>>} */ (pages());
  let shown = /** @type {string | null} */ (null);

  const looking = polling(LOOK_MILLISECONDS, async (signal) => {
    const page = await get(FIRST, signal);
    listed.take(page.sessions, page.earlier);
    draw();
  });

  async function readEarlier() {
    const path = /** @type {string} */ (listed.lengthen());
    const page = await get(path);
    listed.more(path, page.sessions, page.earlier);
    draw();
  }

  function draw() {
    const sessions = listed.rows();
    const wanted = new Set(sessions.map((each) => each.id));
    for (const [id, row] of rows) {
      if (wanted.has(id)) continue;
      row.element.remove();
      rows.delete(id);
    }
    let before = /** @type {ChildNode | null} */ (list.firstChild);
    for (const session of sessions) {
      const row = rows.get(session.id) ?? rowOf(session.id);
      rows.set(session.id, row);
      row.update(session, session.id === shown);
      if (row.element === before) before = before.nextSibling;
      else list.insertBefore(row.element, before);
    }
    more.hidden = listed.earlier() === null;
  }

  return {
    element,
    now: looking.now,
    /** @param {string} sessionId one that is deleted: it may stand where nobody looks any more */
    drop(sessionId) {
      listed.drop(sessionId);
      draw();
    },
    /** @param {string | null} sessionId the one that is open */
    show(sessionId) {
      shown = sessionId;
      if (!matchMedia("(min-width: 900px)").matches) fold.open = false;
      draw();
    },
    close: looking.stop,
  };
}

/** @param {string} id */
function rowOf(id) {
  const title = h("span", { class: "session-title", dir: "auto" });
  const about = h("span", { class: "quiet-text" });
  const link = h("a", { href: `#/chat/${id}` }, title, about);
  return {
    element: h("li", null, link),
    /** @param {ListedSession} session @param {boolean} isShown */
    update(session, isShown) {
      say(title, session.title ?? "Without a title");
      say(about, session.status === "busy" ? "busy" : moment(session.created_at));
      link.classList.toggle("busy", session.status === "busy");
      if (isShown) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    },
  };
}
