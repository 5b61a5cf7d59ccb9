// A list of any length with a handful of elements: those rows exist that are looked at, each as high as the others. One
// row is chosen; it is gone to with the keys of any list, and said to who cannot see it.

import { h } from "./dom.js";

/**
 * @typedef {object} Rows
 * @property {string} label
 * @property {() => HTMLElement} make a row without content; it is used again and again
 * @property {(element: HTMLElement, row: number) => void} show
 * @property {(row: number) => void} choose a person has chosen this row
 * @property {(row: number) => void} open a person wants to see all of it
 */
/**
 * @typedef {object} VirtualList
 * @property {HTMLElement} element
 * @property {(count: number, chosen: number) => void} update there are so many rows now; -1: none is chosen
 * @property {(row: number) => void} reveal scroll so that this row is seen
 * @property {() => void} close
 */

const ROW_PIXELS = 28;
const SPARE = 6; // rows on either side
let lists = 0; // so that ids are of one list alone

/** @param {Rows} rows @returns {VirtualList} */
export function virtualList(rows) {
  const id = `rows-${++lists}`;
  const room = h("div", { class: "rows-room", role: "presentation" });
  const element = h("div", { class: "rows", role: "listbox", tabindex: "0", "aria-label": rows.label }, room);
  const pool = /** @type {{element: HTMLElement, row: number}[]} */ ([]);
  const resized = new ResizeObserver(() => {
    height = element.clientHeight;
    draw(false);
  });
  let count = 0;
  let chosen = -1;
  let frame = 0;
  let height = 0; // these two are kept: to ask for them would have the whole page laid out in between
  let top = 0;

  const visible = () => Math.ceil(height / ROW_PIXELS);

  /** @param {boolean} isAnew whether rows may show something else than before */
  function draw(isAnew) {
    const first = Math.max(0, Math.floor(top / ROW_PIXELS) - SPARE);
    const size = visible() + 2 * SPARE;
    while (pool.length < size) pool.push(made());
    for (let offset = 0; offset < pool.length; offset++) {
      const row = first + offset;
      place(pool[row % pool.length], row < count && offset < size ? row : -1, isAnew);
    }
    const isSeen = pool.some((each) => each.row === chosen && chosen >= 0);
    if (isSeen) element.setAttribute("aria-activedescendant", `${id}-${chosen}`);
    else element.removeAttribute("aria-activedescendant");
  }

  function made() {
    const row = rows.make();
    row.setAttribute("role", "option");
    room.append(row);
    return { element: row, row: -1 };
  }

  /** @param {{element: HTMLElement, row: number}} slot @param {number} row @param {boolean} isAnew */
  function place(slot, row, isAnew) {
    slot.element.hidden = row < 0;
    const isMoved = slot.row !== row;
    slot.row = row;
    if (row < 0) return;
    slot.element.setAttribute("aria-selected", String(row === chosen));
    slot.element.setAttribute("aria-setsize", String(count));
    if (!isMoved && !isAnew) return;
    slot.element.id = `${id}-${row}`;
    slot.element.setAttribute("aria-posinset", String(row + 1));
    slot.element.style.setProperty("transform", `translateY(${row * ROW_PIXELS}px)`);
    rows.show(slot.element, row);
  }

  /** @param {number} row */
  function reveal(row) {
    const begin = row * ROW_PIXELS;
    if (begin >= top && begin + ROW_PIXELS <= top + height) return;
    top = begin < top ? begin : Math.max(0, begin + ROW_PIXELS - height);
    element.scrollTop = top;
    draw(false);
  }

  /** @param {KeyboardEvent} event */
  function onKey(event) {
    if (event.altKey || event.ctrlKey || event.metaKey || !count) return;
    if (event.key === "Enter") {
      if (chosen >= 0) rows.open(chosen);
    } else if (event.key in KEYS) {
      const wanted = KEYS[event.key](chosen, Math.max(1, visible() - 1), count);
      rows.choose(Math.max(0, Math.min(count - 1, wanted)));
    } else return;
    event.preventDefault();
  }

  /** @param {Event} event */
  function onClick(event) {
    const clicked = pool.find((each) => each.element.contains(/** @type {Node} */ (event.target)));
    if (clicked && clicked.row >= 0) rows.choose(clicked.row);
  }

  function onScroll() {
    top = element.scrollTop;
    frame ||= requestAnimationFrame(() => {
      frame = 0;
      draw(false);
    });
  }

  element.addEventListener("scroll", onScroll, { passive: true });
  element.addEventListener("keydown", onKey);
  room.addEventListener("click", onClick);
  resized.observe(element);
  return {
    element,
    update(nextCount, nextChosen) {
      if (nextCount !== count) room.style.setProperty("height", `${nextCount * ROW_PIXELS}px`);
      [count, chosen] = [nextCount, nextChosen];
      draw(true);
    },
    reveal,
    close() {
      resized.disconnect();
      cancelAnimationFrame(frame);
    },
  };
}

/** @type {Record<string, (chosen: number, page: number, count: number) => number>} */
const KEYS = {
  ArrowDown: (chosen) => chosen + 1,
  ArrowUp: (chosen) => chosen - 1,
  PageDown: (chosen, page) => chosen + page,
  PageUp: (chosen, page) => chosen - page,
  Home: () => 0,
  End: (_chosen, _page, count) => count - 1,
};
