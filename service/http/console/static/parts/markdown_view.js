// Markdown on the page, as it grows. Only blocks that have changed are made anew; what takes longer than a part of a
// frame goes on in the next one, so that the page stays alive whatever it shows.

import { markdown } from "../model/markdown.js";
import { h } from "./dom.js";
import { blockElement } from "./markdown_nodes.js";

/** @import {TopBlock} from "../model/markdown_tree.js" */

const SLICE_MILLISECONDS = 8;
const NEAR = 100; // blocks that are laid out wherever they are

/**
 * An element that shows a text. `update` is given all of it each time, and shows it from the next frame on; `flush`
 * shows at once what is not shown yet; `close` gives up what is not: the element is no longer used.
 * @returns {{element: HTMLElement, update: (text: string) => void, flush: () => void, close: () => void}}
 */
export function markdownView() {
  const element = h("div", { class: "markdown" });
  const parser = markdown();
  let wanted = "";
  /** @type {readonly TopBlock[]} */
  let blocks = [];
  /** @type {TopBlock[]} */
  const shown = []; // what each child of the element shows
  let same = 0; // so many of them show what they should
  let frame = 0;

  /** @param {string} text */
  function update(text) {
    wanted = text;
    frame ||= requestAnimationFrame(() => render(SLICE_MILLISECONDS));
  }

  /** @param {number} milliseconds */
  function render(milliseconds) {
    const end = performance.now() + milliseconds;
    read();
    do if (same < blocks.length) show(same++);
    while (same < blocks.length && performance.now() < end);
    frame = same < blocks.length ? requestAnimationFrame(() => render(SLICE_MILLISECONDS)) : 0;
    while (frame === 0 && shown.length > blocks.length) {
      shown.pop();
      element.lastElementChild?.remove();
    }
  }

  function read() {
    const before = blocks;
    blocks = parser.update(wanted);
    if (blocks === before) return;
    same = 0;
    while (same < shown.length && shown[same] === blocks[same]) same++;
  }

  /** @param {number} number */
  function show(number) {
    const block = blocks[number];
    const made = blockElement(block, () => codeFrom(blocks, block));
    if (number >= NEAR) made.classList.add("md-far");
    const former = element.children[number];
    if (former) former.replaceWith(made);
    else element.append(made);
    shown[number] = block;
  }

  function close() {
    cancelAnimationFrame(frame);
    frame = 0;
  }

  function flush() {
    close();
    render(Infinity);
  }

  return { element, update, flush, close };
}

/** The code of a block, and of those that it goes on in. @param {readonly TopBlock[]} blocks @param {TopBlock} first */
function codeFrom(blocks, first) {
  let code = "";
  for (let at = blocks.indexOf(first); at < blocks.length; at++) {
    const {
      content: [block],
      continues,
      inLine,
    } = blocks[at];
    if (block?.type !== "fence" || (blocks[at] !== first && !continues)) break;
    code += (continues && !inLine ? "\n" : "") + block.text;
  }
  return code;
}
