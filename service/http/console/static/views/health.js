// How the service is: its stores and doors, how far it is behind, what the process that answers has counted, and how
// that went while somebody looked.

import { backlog, ofProcess } from "../model/figures.js";
import { parseMetrics, rate, total } from "../model/metrics.js";
import { h, say } from "../parts/dom.js";
import { age, duration, number, size } from "../parts/format.js";
import { liveTable, statusColumn, textColumn } from "../parts/live_table.js";
import { sparkline } from "../parts/sparkline.js";
import { tiles } from "../parts/tiles.js";
import { Refused, ask, get, urlOf } from "../service/api.js";
import { polling } from "../service/polling.js";

/** @typedef {import("../model/metrics.js").Look} Look */
/** @typedef {import("../model/metrics.js").Sample} Sample */
/** @typedef {import("../model/figures.js").Figure} Figure */
/** @typedef {{name: string, status: string, since: string | null, detail: string}} Part what the service stands on */

const AGAIN_MILLISECONDS = 3000;
const NOT_SHOWN = "The figures take a credential with the scope ops.";

/** @returns {import("../parts/view.js").View} */
export function healthView() {
  const problem = h("p", { class: "problem", role: "alert" });
  const badge = h("span", { class: "badge", role: "status" }, "…");
  const stands = partsTable();
  const figures = figuresSection();
  let isForbidden = false;

  /** @param {AbortSignal} signal */
  async function look(signal) {
    const [ready, counted] = await Promise.allSettled([readiness(signal), isForbidden ? null : metrics(signal)]);
    if (ready.status === "rejected") throw ready.reason;
    say(badge, ready.value.status);
    badge.dataset.status = ready.value.status;
    stands.show(partsOf(ready.value));
    if (counted.status === "fulfilled") return counted.value && figures.show(counted.value);
    if (!(counted.reason instanceof Refused && counted.reason.status === 403)) throw counted.reason;
    isForbidden = true;
    figures.withhold(NOT_SHOWN);
  }

  /** @param {Error | null} error */
  function failed(error) {
    say(problem, error?.message ?? "");
    if (error === null) return;
    say(badge, "unknown");
    badge.dataset.status = "unknown";
  }

  const polled = polling(AGAIN_MILLISECONDS, look, failed);
  return {
    element: h(
      "div",
      { class: "view health" },
      h("div", { class: "row" }, h("h1", null, "Health"), badge),
      problem,
      stands.element,
      figures.element,
      h(
        "p",
        { class: "quiet-text" },
        h("a", { href: urlOf("/openapi.json") }, "The contract of this service"),
        " (OpenAPI)",
      ),
    ),
    title: "Health",
    close: () => polled.stop(),
  };
}

/** What `/readyz` says; that it is not ready is an answer, too. @param {AbortSignal} signal @returns {Promise<any>} */
async function readiness(signal) {
  try {
    return await get("/readyz", signal);
  } catch (error) {
    if (error instanceof Refused && error.problem?.dependencies) return error.problem;
    throw error;
  }
}

/** @param {AbortSignal} signal @returns {Promise<Look>} */
async function metrics(signal) {
  const text = await (await ask("GET", "/metrics", { signal })).text();
  return { at: performance.now(), samples: parseMetrics(text) };
}

/** @param {any} readiness @returns {Part[]} */
function partsOf({ dependencies, intakes = {} }) {
  const stores = Object.entries(dependencies).map(([name, { status, since = null }]) => ({
    name,
    status,
    since,
    detail: "–",
  }));
  const doors = Object.entries(intakes).map(([name, { status, since = null, ...intake }]) => ({
    name,
    status,
    since,
    detail: intakeText(intake),
  }));
  return [...stores, ...doors];
}

/** @param {{in_hand: number, waits_for?: string, last_delivery?: string}} intake */
function intakeText({ in_hand: inHand, waits_for: waitsFor, last_delivery: last }) {
  const said = [
    `${number(inHand)} in hand`,
    waitsFor && `waits for ${waitsFor}`,
    last && `last message ${age(last)} ago`,
  ];
  return said.filter(Boolean).join(", ");
}

function partsTable() {
  return liveTable({
    label: "Stores and doors",
    key: (/** @type {Part} */ row) => row.name,
    empty: "It stands on nothing else.",
    columns: [
      textColumn("Name", (row) => row.name),
      statusColumn((row) => row.status),
      textColumn("For", (row) => age(row.since)),
      textColumn("Detail", (row) => row.detail),
    ],
  });
}

function figuresSection() {
  const whole = tiles();
  const own = tiles();
  const every = everyMetric();
  const lines = LINES.map(({ label, of }) => ({ of, line: sparkline(label) }));
  const withheld = h("p", { class: "quiet-text" });
  const shown = h(
    "div",
    { class: "stack", hidden: true },
    h("h2", null, "The whole service"),
    whole.element,
    h("h2", null, "The process that answers"),
    own.element,
    h(
      "div",
      { class: "sparks" },
      lines.map(({ line }) => line.element),
    ),
    every.element,
  );
  let before = /** @type {Look | null} */ (null);
  return {
    element: h("div", null, withheld, shown),
    /** @param {Look} now */
    show(now) {
      shown.hidden = false;
      whole.show(backlog(now).map(tileOf));
      own.show(ofProcess(before, now).map(tileOf));
      for (const { of, line } of lines) line.push(of(before, now));
      every.show(now.samples);
      before = now;
    },
    /** @param {string} why */
    withhold(why) {
      say(withheld, why);
      shown.hidden = true;
    },
  };
}

/** @type {{label: string, of: (before: Look | null, now: Look) => number | null}[]} */
const LINES = [
  { label: "Events a second", of: (before, now) => rate(before, now, "playhead_appended_events_total") },
  { label: "Appends a second", of: (before, now) => rate(before, now, "playhead_appends_total") },
  { label: "Followers", of: (_, now) => total(now.samples, "playhead_streams") },
  { label: "Tasks queued", of: (_, now) => total(now.samples, "playhead_backlog", { kind: "queued" }) },
];

/** @param {Figure} figure @returns {import("../parts/tiles.js").Tile} */
function tileOf({ value, unit, ...figure }) {
  const shown = {
    count: () => number(value),
    seconds: () => duration(value * 1000),
    rate: () => `${number(Math.round(value * 10) / 10)}/s`,
    bytes: () => size(value),
    within: () => (Number.isFinite(value) ? `within ${duration(value * 1000)}` : "later than is counted"),
  };
  return { ...figure, value: shown[unit](), note: unit === "within" ? "95 of 100 of them" : "" };
}

/** All that is counted, folded away; what is not looked at is not made. */
function everyMetric() {
  const wanted = h("input", { type: "search", autocomplete: "off", oninput: again });
  const table = liveTable({
    label: "All metrics",
    key: (/** @type {Sample} */ row) => nameOf(row),
    empty: "None is called so.",
    columns: [textColumn("Metric", nameOf, { class: "mono" }), textColumn("Value", (row) => String(row.value))],
  });
  const element = h(
    "details",
    { ontoggle: again },
    h("summary", null, "All metrics"),
    h("div", { class: "stack tight" }, h("label", null, "Only those with", wanted), table.element),
  );
  let newest = /** @type {Sample[]} */ ([]);

  function again() {
    if (element.open) table.show(newest.filter((each) => nameOf(each).includes(wanted.value.trim())));
  }
  return {
    element,
    /** @param {Sample[]} samples */
    show(samples) {
      newest = samples;
      again();
    },
  };
}

/** @param {Sample} sample */
function nameOf({ name, labels }) {
  const said = Object.entries(labels).map(([label, value]) => `${label}=${JSON.stringify(value)}`);
  return said.length ? `${name}{${said.join(", ")}}` : name;
}
