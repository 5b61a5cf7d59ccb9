// A block of Markdown as elements. They are made by name, and text is put into them as text: what an agent says can be
// no element, attribute or address but those that stand here.

import { h } from "./dom.js";

/** @import {Block, Cell, Fence, Inline, Item, List, Table, TopBlock} from "../model/markdown_tree.js" */

const MARKS = /** @type {const} */ ({ strong: "strong", emphasis: "em", strike: "del" });
const COPIED_MILLISECONDS = 2000;

/**
 * The element of a block that stands by itself.
 * @param {TopBlock} block
 * @param {() => string} code what its button copies, if it is one of code
 * @returns {HTMLElement}
 */
export function blockElement(block, code) {
  const element = h("div", { class: "md-block", dir: "auto" });
  if (block.continues) element.classList.add("md-continues");
  if (block.inLine) element.classList.add("md-in-line");
  for (const inside of block.content) {
    element.append(inside.type === "fence" ? fence(inside, code, block.continues) : blockNode(inside));
  }
  return element;
}

/** @param {Block} block @returns {HTMLElement} */
function blockNode(block) {
  switch (block.type) {
    case "paragraph":
      return h("p", { dir: "auto" }, ...inlineNodes(block.children));
    case "heading":
      // The page has headings of its own: those of an answer stand below them.
      return h(
        "div",
        {
          role: "heading",
          "aria-level": Math.min(block.level + 2, 6),
          dir: "auto",
          class: `md-heading md-heading-${block.level}`,
        },
        ...inlineNodes(block.children),
      );
    case "fence":
      return fence(block, () => block.text, false);
    case "quote":
      return h("blockquote", { dir: "auto" }, ...block.blocks.map(blockNode));
    case "rule":
      return h("hr");
    case "list":
      return list(block);
    case "table":
      return table(block);
  }
}

/** @param {Fence} fence @param {() => string} code @param {boolean} continues @returns {HTMLElement} */
function fence({ language, text }, code, continues) {
  const pre = h("pre", { dir: "ltr", tabindex: 0 }, h("code", {}, text));
  if (continues) return h("div", { class: "md-code" }, pre);
  const label = h("span", { class: "md-language" }, language);
  return h("div", { class: "md-code" }, h("div", { class: "md-code-head" }, label, copyButton(code)), pre);
}

/** @param {() => string} code @returns {HTMLElement} */
function copyButton(code) {
  const button = h("button", { type: "button", class: "md-copy", "aria-label": "Copy the code" }, "Copy");
  button.addEventListener("click", async () => {
    button.textContent = (await copied(code())) ? "Copied" : "Not copied";
    setTimeout(() => (button.textContent = "Copy"), COPIED_MILLISECONDS);
  });
  return button;
}

/** Whether it could be: on a page that is not served safely there is no clipboard. @param {string} text */
async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false;
  }
}

/** @param {List} list @returns {HTMLElement} */
function list({ ordered, first, tight, items }) {
  const children = items.map((item) => itemNode(item, tight));
  const attributes = { dir: "auto", class: tight ? "md-tight" : "md-loose" };
  return ordered ? h("ol", { ...attributes, start: first }, ...children) : h("ul", attributes, ...children);
}

/** @param {Item} item @param {boolean} tight @returns {HTMLElement} */
function itemNode({ task, begun, blocks }, tight) {
  const kinds = [task === null ? "" : "md-task", begun ? "" : "md-rest"].filter(Boolean).join(" ");
  const element = h("li", { dir: "auto", class: kinds || false });
  if (task !== null) element.append(taskBox(task));
  for (const block of blocks) {
    if (tight && block.type === "paragraph") element.append(h("span", {}, ...inlineNodes(block.children)));
    else element.append(blockNode(block));
  }
  return element;
}

/** @param {boolean} done @returns {HTMLElement} */
function taskBox(done) {
  return h("input", { type: "checkbox", disabled: true, checked: done, "aria-label": done ? "done" : "to be done" });
}

/** @param {Table} table @returns {HTMLElement} */
function table({ aligns, header, rows }) {
  const body = h("tbody", {}, ...rows.map((row) => rowNode("td", row, aligns)));
  const head = header ? [h("thead", {}, rowNode("th", header, aligns))] : [];
  const region = { class: "md-table", tabindex: 0, role: "region", "aria-label": "Table" };
  return h("div", region, h("table", {}, ...head, body));
}

/** @param {"td" | "th"} name @param {readonly Cell[]} cells @param {Table["aligns"]} aligns @returns {HTMLElement} */
function rowNode(name, cells, aligns) {
  return h(
    "tr",
    {},
    ...cells.map((cell, column) => {
      const align = aligns[column];
      return h(name, { dir: "auto", class: align ? `md-${align}` : false }, ...inlineNodes(cell));
    }),
  );
}

/** @param {readonly Inline[]} nodes @returns {(Node | string)[]} */
function inlineNodes(nodes) {
  return nodes.map((node) => {
    if (node.type === "text") return node.text;
    if (node.type === "code") return h("code", {}, node.text);
    if (node.type === "break") return node.hard ? h("br") : "\n";
    const children = inlineNodes(node.children);
    return node.type === "link" ? link(node.target, node.title, children) : h(MARKS[node.type], {}, ...children);
  });
}

/** @param {string} target @param {string} title @param {(Node | string)[]} children @returns {HTMLElement} */
function link(target, title, children) {
  return h(
    "a",
    {
      href: target,
      title: title ? `${title} (${target})` : target,
      rel: "noopener noreferrer nofollow",
      target: "_blank",
    },
    ...children,
  );
}
