// An assistant's message, part by part, as it stands: while it grows each part is changed in place, so that what a
// person has opened, selected or half read stays as it is. Nothing of it becomes markup but what `markdown_view` makes.

import { button, fill, h, say } from "./dom.js";
import { counted, duration, jsonText, reveal } from "./format.js";
import { markdownView } from "./markdown_view.js";

/** @typedef {import("../model/fold.js").Part} Part */
/** @typedef {import("../model/fold.js").Note} Note */
/**
 * What is shown: a fold of a log, or a stored message.
 * @typedef {{parts: Part[], notes?: Note[]}} Shown
 */
/**
 * How an operation is shown that a part names. Without it, what the message says of it is all.
 * @typedef {(operationId: string) => {element: HTMLElement, close(): void}} OperationParts
 */
/** @typedef {{key: string, element: HTMLElement, update(value: any): void, close?(): void}} Item */

const MAX_VALUE_CHARACTERS = 20_000;

const STATES = /** @type {Record<string, [status: string, text: string]>} */ ({
  "input-streaming": ["running", "being asked for"],
  "input-available": ["running", "at work"],
  "approval-requested": ["pending", "asks you"],
  "approval-responded": ["running", "answered"],
  "output-available": ["succeeded", "done"],
  "output-error": ["failed", "failed"],
  "output-denied": ["cancelled", "denied"],
});

/**
 * @param {OperationParts} [operations]
 * @returns {{element: HTMLElement, update(shown: Shown): void, close(): void}}
 */
export function messageView(operations) {
  const element = h("div", { class: "message-parts" });
  let items = /** @type {Item[]} */ ([]);

  return {
    element,
    update(shown) {
      const wanted = wantedItems(shown);
      const former = new Map(items.map((item) => [item.key, item]));
      const keys = new Set(wanted.map(({ key }) => key));
      for (const item of items) if (!keys.has(item.key)) dropped(item);
      let before = element.firstChild;
      items = wanted.map(({ key, value }) => {
        const item = former.get(key) ?? itemOf(key, value, operations);
        if (item.element === before) before = before.nextSibling;
        else element.insertBefore(item.element, before);
        item.update(value);
        return item;
      });
    },
    close() {
      for (const item of items) item.close?.();
      items = [];
    },
  };
}

/** @param {Item} item */
function dropped(item) {
  item.close?.();
  item.element.remove();
}

/** What stands in a message, in its order. @param {Shown} shown @returns {{key: string, value: any}[]} */
function wantedItems({ parts, notes = [] }) {
  const asked = new Set(parts.map((part) => part.approval?.id).filter(Boolean));
  const wanted = [];
  const told = new Map();
  const waiting = [...notes];
  for (let place = 0; place <= parts.length; place += 1) {
    while (waiting.length && waiting[0].place <= place) {
      const value = /** @type {Note} */ (waiting.shift());
      told.set(value.kind, (told.get(value.kind) ?? 0) + 1);
      wanted.push({ key: `note ${value.kind} ${told.get(value.kind)}`, value });
    }
    const part = parts[place];
    if (part === undefined || part.type === "step-start") continue;
    if (part.type === "data-operation" && asked.has(part.id)) continue; // its question has it
    const id = part.toolCallId ?? (part.type === "data-operation" ? part.id : ""); // texts have theirs in logs alone
    wanted.push({ key: `${place} ${part.type} ${id}`, value: part });
  }
  return wanted;
}

/** @param {string} key @param {any} value @param {OperationParts} [operations] @returns {Item} */
function itemOf(key, value, operations) {
  if (key.startsWith("note ")) return noteItem(key);
  if (value.type === "text") return textItem(key);
  if (value.type === "reasoning") return reasoningItem(key);
  if (value.type === "data-operation") return operationItem(key, value.id);
  if (value.toolCallId !== undefined) return toolItem(key, operations);
  return otherItem(key);
}

/** @param {string} key @returns {Item} */
function textItem(key) {
  const view = markdownView();
  const element = h("div", { class: "part-text" }, view.element);
  return { key, element, update: (part) => view.update(part.text), close: view.close };
}

/** @param {string} key @returns {Item} */
function reasoningItem(key) {
  const summary = h("summary", null);
  const text = h("div", { class: "reasoning-text", dir: "auto" });
  return {
    key,
    element: h("details", { class: "part-reasoning" }, summary, text),
    update(part) {
      say(summary, part.state === "streaming" ? "Reasoning …" : `Reasoning, ${counted(part.text.length, "character")}`);
      say(text, part.text);
    },
  };
}

/** @param {string} key @param {OperationParts} [operations] @returns {Item} */
function toolItem(key, operations) {
  const badge = h("span", { class: "badge" });
  const name = h("span", { class: "tool-name mono" });
  const input = valueView("Input");
  const output = valueView("Output");
  const error = h("p", { class: "problem pre-line", dir: "auto" });
  const place = h("div", { class: "tool-operation" });
  let operation = /** @type {ReturnType<OperationParts> | null} */ (null);
  let shownId = "";
  const details = h(
    "details",
    { class: "tool-values" },
    h("summary", null, "Input and output"),
    input.element,
    output.element,
  );
  return {
    key,
    element: h("section", { class: "card tool" }, h("div", { class: "row" }, name, badge), place, error, details),
    update(part) {
      const toolName = part.type.slice("tool-".length);
      const operationId = (part.preliminary && part.output?.operation_id) || askedId(part);
      const [status, text] = part.preliminary ? ["pending", "handed out"] : (STATES[part.state] ?? ["", part.state]);
      say(name, reveal(toolName));
      say(badge, text);
      badge.dataset.status = status;
      this.element.setAttribute("aria-label", `Tool ${toolName}`);
      input.update(part.input, part.input === undefined ? (part.inputText ?? "") : undefined);
      output.update(part.output, part.state === "output-available" ? undefined : "");
      say(error, part.errorText ? reveal(part.errorText) : deniedText(part));
      if (operations && operationId !== shownId) {
        operation?.close();
        operation = operationId ? operations(operationId) : null;
        shownId = operationId;
        fill(place, operation?.element);
      }
    },
    close: () => operation?.close(),
  };
}

/**
 * The operation by which a person is asked; its follow-up has the answer, and needs no card.
 * @param {Part} part
 */
function askedId(part) {
  return part.state === "approval-requested" ? part.approval.id : "";
}

/** @param {Part} part */
function deniedText(part) {
  if (part.state !== "output-denied") return "";
  return part.approval?.reason ? `Denied: ${part.approval.reason}` : "Denied.";
}

/**
 * A JSON value under its name; a long one by its beginning until all of it is asked for.
 * @param {string} name
 */
function valueView(name) {
  const text = h("pre", { tabindex: "0", "aria-label": name });
  const more = button("Show all of it", () => {
    isWhole = true;
    show();
  });
  const element = h("div", { class: "value" }, h("div", { class: "quiet-text" }, name), text, more);
  let isWhole = false;
  let shown = "";
  let last = /** @type {unknown} */ (undefined);

  function show() {
    say(text, isWhole ? shown : shown.slice(0, MAX_VALUE_CHARACTERS));
    more.hidden = isWhole || shown.length <= MAX_VALUE_CHARACTERS;
  }

  return {
    element,
    /** @param {unknown} value @param {string} [instead] what stands for it while it is not there */
    update(value, instead) {
      element.hidden = instead === "";
      if (last === value && (instead === undefined || instead === shown)) return;
      last = value;
      shown = instead === undefined ? jsonText(value) : reveal(instead);
      show();
    },
  };
}

/** @param {string} key @param {string} operationId @returns {Item} */
function operationItem(key, operationId) {
  const badge = h("span", { class: "badge" });
  const link = h("a", { href: `#/operations/${encodeURIComponent(operationId)}` });
  return {
    key,
    element: h("p", { class: "part-note row" }, link, badge),
    update(part) {
      say(badge, part.data.status);
      badge.dataset.status = part.data.status;
      say(link, `Operation ${part.data.toolName}`);
    },
  };
}

/** @param {string} key @returns {Item} */
function otherItem(key) {
  const view = valueView("Part");
  return { key, element: view.element, update: (part) => view.update(part) };
}

/** @param {string} key @returns {Item} */
function noteItem(key) {
  const element = h("div", { class: "part-note" });
  return {
    key,
    element,
    update(note) {
      if (note.kind === "steering") return steering(element, note);
      say(element, noteText(note));
    },
  };
}

/** @param {HTMLElement} element @param {Note} note */
function steering(element, note) {
  const text = note.data.parts.map((/** @type {Part} */ part) => part.text ?? "(a file)").join("\n");
  element.className = "part-steering";
  fill(
    element,
    h("div", { class: "quiet-text" }, "You, meanwhile"),
    h("div", { class: "pre-line", dir: "auto" }, text),
  );
}

/** @param {Note} note */
function noteText({ kind, data }) {
  switch (kind) {
    case "attempt":
      return `It was taken up again (attempt ${data.attempt}, epoch ${data.epoch}).`;
    case "retry":
      return `The model call failed (${data.errorType}); try ${data.attempt} in ${duration(data.waitSeconds * 1000)}.`;
    case "reset":
      return "This step was begun again; what it had said was dropped.";
    case "compaction":
      return `The context was shortened from ${data.tokensBefore} to ${data.tokensAfter} tokens.`;
    case "limit":
      return `The limit of ${counted(data.limit, "iteration")} is reached.`;
    default:
      return "";
  }
}
