// Dead letters: what came over RabbitMQ and nobody could take, and why; sent again from here.

import { confirmed } from "../parts/confirmed.js";
import { button, h, say } from "../parts/dom.js";
import { counted, moment, reveal, size } from "../parts/format.js";
import { column, liveTable, textColumn } from "../parts/live_table.js";
import { doing, toast } from "../parts/toasts.js";
import { Refused, get, post, withQuery } from "../service/api.js";
import { polling } from "../service/polling.js";

/**
 * @typedef {object} Letter
 * @property {string} id
 * @property {string} reason
 * @property {string} detail
 * @property {string | null} died_at
 * @property {string | null} message_id
 * @property {string | null} app_id
 * @property {number} size
 * @property {string} body
 */
/** @typedef {{letter: Letter, key: string}} Row copies of a message share its id */

const AGAIN_MILLISECONDS = 5000;
const LISTED = 100;

const FOR_GOOD = new Map([
  ["no_broker", "No RabbitMQ is configured (PLAYHEAD_AMQP_URL), so there are no dead letters."],
  ["forbidden", "Only the service's own keys with the scope ops may look at dead letters."],
]);

/** @returns {import("../parts/view.js").View} */
export function deadLettersView() {
  const problem = h("p", { class: "problem", role: "alert" });
  const note = h("p", { class: "quiet-text" });
  const ofAll = redriveAll("Redrive all", "Redrive all dead letters?", {});
  const acts = h("div", { class: "row", role: "group", "aria-label": "Redrive" }, ofAll);
  const table = letterTable((letter) => redrive({ id: letter.id }));
  const all = h("section", { class: "stack", hidden: true }, acts, table.element, note);
  /** @type {Map<string, HTMLButtonElement>} */
  const ofReasons = new Map();

  /** @param {Letter[]} letters */
  function show(letters) {
    all.hidden = false;
    table.show(letters.map((letter, place) => ({ letter, key: `${letter.id} ${copiesBefore(letters, place)}` })));
    say(note, letters.length < LISTED ? "" : `The oldest ${LISTED}: there may be later ones.`);
    for (const { reason } of letters) {
      if (ofReasons.has(reason)) continue;
      const act = redriveAll(`Redrive ${reason}`, `Redrive all that are ${reason}?`, { reason });
      ofReasons.set(reason, act);
      acts.append(act);
    }
    for (const [reason, act] of ofReasons) act.hidden = !letters.some((each) => each.reason === reason);
    ofAll.hidden = letters.length === 0;
  }

  /** @param {string} text @param {string} question @param {object} which */
  function redriveAll(text, question, which) {
    return confirmed(text, question, (pressed) => doing(pressed, () => redrive(which)));
  }

  /** @param {object} which */
  async function redrive(which) {
    const { redriven } = await post("/dead-letters/redrive", which);
    toast(redriven ? `${counted(redriven, "dead letter")} sent again.` : "It is not there any more.", "done");
    polled.now();
  }

  /** @param {Error | null} error */
  function failed(error) {
    const forGood = error instanceof Refused ? FOR_GOOD.get(error.errorType) : undefined;
    if (forGood) polled.stop();
    say(problem, forGood ?? error?.message ?? "");
  }

  const polled = polling(
    AGAIN_MILLISECONDS,
    async (signal) => show((await get(withQuery("/dead-letters", { limit: LISTED }), signal)).dead_letters),
    failed,
  );
  return {
    element: h("div", { class: "view" }, h("h1", null, "Dead letters"), problem, all),
    title: "Dead letters",
    close: () => polled.stop(),
  };
}

/** How many copies of this letter stand in front of it. @param {Letter[]} letters @param {number} place */
function copiesBefore(letters, place) {
  return letters.slice(0, place).filter((each) => each.id === letters[place].id).length;
}

/** @param {(letter: Letter) => Promise<void>} redrive */
function letterTable(redrive) {
  return liveTable({
    label: "Dead letters",
    key: (/** @type {Row} */ row) => row.key,
    empty: "There are no dead letters.",
    columns: [
      textColumn("Died", ({ letter }) => moment(letter.died_at)),
      textColumn("Reason", ({ letter }) => letter.reason),
      textColumn("Detail", ({ letter }) => reveal(letter.detail)),
      textColumn("Message", ({ letter }) => reveal(letter.message_id ?? "–"), { class: "mono" }),
      textColumn("From", ({ letter }) => reveal(letter.app_id ?? "–")),
      column("Body", bodyElement, showBody),
      redriveColumn(redrive),
    ],
  });
}

function bodyElement() {
  const text = h("pre", { class: "value", tabindex: 0, role: "group", "aria-label": "Body" });
  return h("details", null, h("summary", null), text);
}

/** @param {HTMLElement} element @param {Row} row */
function showBody(element, { letter }) {
  const [summary, text] = element.children;
  say(summary, size(letter.size));
  say(text, reveal(letter.body));
}

/** @param {(letter: Letter) => Promise<void>} redrive @returns {import("../parts/live_table.js").Column<Row>} */
function redriveColumn(redrive) {
  return {
    title: "Actions",
    cell() {
      let shown = /** @type {Letter | null} */ (null);
      const element = button("Redrive", () => doing(element, async () => shown && redrive(shown)));
      return {
        element,
        show({ letter }) {
          shown = letter;
        },
      };
    },
  };
}
