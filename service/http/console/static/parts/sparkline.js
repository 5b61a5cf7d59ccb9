// A figure with how it went while somebody looked: a small line, of so many looks at most.

import { stretches } from "../model/line.js";
import { fill, h, say, svg } from "./dom.js";
import { number } from "./format.js";

const MOST = 120;
const HEIGHT = 32;

/**
 * @param {string} label
 * @returns {{element: HTMLElement, push(figure: number | null): void}} null: it is not known
 */
export function sparkline(label) {
  const figures = /** @type {(number | null)[]} */ ([]);
  const now = h("strong", { class: "figure" }, "–");
  const drawing = svg("svg", { viewBox: `0 0 ${MOST} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" });
  const element = h("div", { class: "card spark" }, h("span", { class: "quiet-text" }, label), now, drawing);

  /** @param {number | null} figure */
  function push(figure) {
    figures.push(figure);
    if (figures.length > MOST) figures.shift();
    say(now, shown(figure));
    const most = Math.max(...figures.map((each) => each ?? 0));
    drawing.setAttribute(
      "aria-label",
      `${label}: ${shown(figure)} now, ${shown(most)} at most since this page is open`,
    );
    const lines = stretches(figures, MOST - 1, HEIGHT - 2);
    fill(
      drawing,
      lines.map((points) => svg("polyline", { points, transform: "translate(0 1)" })),
    );
  }

  return { element, push };
}

/** @param {number | null} figure */
function shown(figure) {
  return figure === null ? "–" : number(figure < 10 ? Math.round(figure * 10) / 10 : Math.round(figure));
}
