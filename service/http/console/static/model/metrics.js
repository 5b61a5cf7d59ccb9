// What Prometheus' text format says, and what two looks at it come to. A counter that has become smaller is another
// process's, or a new one's: then nothing is known of the time between.

/** @typedef {{name: string, labels: Record<string, string>, value: number}} Sample */
/** @typedef {{at: number, samples: Sample[]}} Look `at` is in milliseconds */

const LINE = /^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{((?:[^"}]|"(?:[^"\\]|\\.)*")*)\})?[ \t]+(\S+)(?:[ \t]+-?\d+)?[ \t]*$/;
const LABEL = /\s*([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"\s*(?:,|$)/gy;
const WORDS = new Map([
  ["NaN", NaN],
  ["+Inf", Infinity],
  ["-Inf", -Infinity],
]);

/** The samples; what cannot be read is passed over. @param {string} text @returns {Sample[]} */
export function parseMetrics(text) {
  return text.split("\n").flatMap((line) => {
    const [whole, name, labels, written] = LINE.exec(line) ?? [];
    if (whole === undefined) return [];
    const value = WORDS.get(written) ?? Number(written);
    if (Number.isNaN(value) && written !== "NaN") return [];
    return [{ name, labels: labelsOf(labels ?? ""), value }];
  });
}

/** @param {string} text */
function labelsOf(text) {
  return Object.fromEntries([...text.matchAll(LABEL)].map(([, name, value]) => [name, unescaped(value)]));
}

/** @param {string} text */
function unescaped(text) {
  return text.replace(/\\(.)/gs, (_, escaped) => (escaped === "n" ? "\n" : escaped));
}

/** @param {Sample[]} samples @param {string} name @param {Record<string, string>} labels */
function those(samples, name, labels) {
  const wanted = Object.entries(labels);
  return samples.filter((each) => each.name === name && wanted.every(([label, value]) => each.labels[label] === value));
}

/**
 * What the samples of this name, and with these labels, add up to; null where there are none, or they say nothing.
 * @param {Sample[]} samples
 * @param {string} name
 * @param {Record<string, string>} [labels]
 * @returns {number | null}
 */
export function total(samples, name, labels = {}) {
  const found = those(samples, name, labels);
  const sum = found.reduce((before, each) => before + each.value, 0);
  return found.length === 0 || Number.isNaN(sum) ? null : sum;
}

/**
 * How much a counter grew between two looks, a second.
 * @param {Look | null} before
 * @param {Look} now
 * @param {string} name
 * @returns {number | null}
 */
export function rate(before, now, name) {
  if (before === null || now.at <= before.at) return null;
  const [first, last] = [total(before.samples, name), total(now.samples, name)];
  return last === null || last < (first ?? 0) ? null : (last - (first ?? 0)) / ((now.at - before.at) / 1000);
}

/**
 * A bound that this share of what a histogram saw between two looks keeps to; null where it saw nothing.
 * @param {number} share
 * @param {Look | null} before null: since its beginning
 * @param {Look} now
 * @param {string} name
 * @returns {number | null}
 */
export function bound(share, before, now, name) {
  const [earlier, counts] = [buckets(before?.samples ?? [], name), buckets(now.samples, name)];
  const seen = [...counts].map(([le, count]) => /** @type {const} */ ([le, count - (earlier.get(le) ?? 0)]));
  seen.sort(([one], [other]) => one - other);
  const all = seen.at(-1)?.[1] ?? 0;
  if (all <= 0 || seen.some(([, count]) => count < 0)) return null;
  return seen.find(([, count]) => count >= share * all)?.[0] ?? null;
}

/** How many were within each bound. @param {Sample[]} samples @param {string} name */
function buckets(samples, name) {
  const counts = new Map(/** @type {[number, number][]} */ ([]));
  for (const { labels, value } of those(samples, `${name}_bucket`, {})) {
    const le = WORDS.get(labels.le) ?? Number(labels.le);
    counts.set(le, (counts.get(le) ?? 0) + value);
  }
  return counts;
}
