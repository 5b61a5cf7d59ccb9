// A line through the newest of some figures.

/**
 * Its stretches as points of a drawing; a figure that is not known breaks the line, one that stands alone is a dot.
 * @param {(number | null)[]} figures the oldest first
 * @param {number} most so many fill the width
 * @param {number} height
 * @returns {string[]}
 */
export function stretches(figures, most, height) {
  const highest = Math.max(1, ...figures.map((each) => each ?? 0));
  const first = most - figures.length;
  /** @type {string[][]} */
  const found = [[]];
  figures.forEach((each, place) => {
    if (each === null) found.push([]);
    else found.at(-1)?.push(`${first + place},${round(height - (each / highest) * height)}`);
  });
  return found
    .filter((points) => points.length)
    .map((points) => (points.length > 1 ? points : [...points, ...points]).join(" "));
}

/** @param {number} value */
function round(value) {
  return Math.round(value * 100) / 100;
}
