// Figures side by side, each with what it is of and where it leads; one that somebody should look at stands out.

import { h, say } from "./dom.js";

/** @typedef {{label: string, value: string, note?: string, isBad?: boolean, href?: string}} Tile */

/** @returns {{element: HTMLElement, show(tiles: Tile[]): void}} */
export function tiles() {
  const element = h("ul", { class: "tiles" });
  /** @type {Map<string, {element: HTMLElement, show(tile: Tile): void}>} */
  const made = new Map();

  /** @param {Tile[]} shown in their order, which is always the same */
  function show(shown) {
    const labels = new Set(shown.map(({ label }) => label));
    for (const [label, tile] of made) tile.element.hidden = !labels.has(label);
    for (const tile of shown) {
      if (!made.has(tile.label)) made.set(tile.label, tileOf(tile));
      const there = /** @type {NonNullable<ReturnType<typeof made.get>>} */ (made.get(tile.label));
      if (!there.element.parentNode) element.append(there.element);
      there.show(tile);
    }
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
