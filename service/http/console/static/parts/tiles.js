// Figures side by side, each with what it is of and where it leads; one that somebody should look at stands out.

import { h, say } from "./dom.js";
import { putInOrder } from "./order.js";

/** @typedef {{label: string, value: string, note?: string, isBad?: boolean, href?: string}} Tile */

/** @returns {{element: HTMLElement, show(tiles: Tile[]): void}} */
export function tiles() {
  const element = h("ul", { class: "tiles" });
  /** @type {Map<string, {element: HTMLElement, show(tile: Tile): void}>} */
  const made = new Map();

  /** @param {Tile} tile */
  function madeOf(tile) {
    const there = made.get(tile.label) ?? tileOf(tile);
    made.set(tile.label, there);
    there.show(tile);
    return there.element;
  }

  /** @param {Tile[]} shown */
  function show(shown) {
    const wanted = shown.map(madeOf);
    for (const { element: tile } of made.values()) if (!wanted.includes(tile)) tile.remove();
    putInOrder(element, wanted);
  }

  return { element, show };
}

/** @param {Tile} tile */
function tileOf({ label, href }) {
  const value = h("strong", { class: "figure" });
  const note = h("span", { class: "quiet-text" });
  const name = href ? h("a", { href }, label) : h("span", null, label);
  const element = h("li", { class: "card tile" }, name, value, note);
  return {
    element,
    /** @param {Tile} tile */
    show(tile) {
      say(value, tile.value);
      say(note, tile.note ?? "");
      element.classList.toggle("bad", tile.isBad === true);
    },
  };
}
