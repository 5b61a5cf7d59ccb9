// A list that is read from its newest end again and again, and on towards its beginning where somebody asks for that:
// what leaves the newest page then stays in the list.

/** @typedef {{id: string, created_at: string}} Entry */

/**
 * @template {Entry} Row
 * @returns {{
 *   rows(): Row[],
 *   earlier(): string | null,
 *   take(rows: Row[], earlier: string | null): void,
 *   more(rows: Row[], earlier: string | null): void,
 *   clear(): void,
 * }} `earlier` is the path of those before the last one
 */
export function pages() {
  let newest = /** @type {Row[]} */ ([]);
  let older = /** @type {Row[]} */ ([]);
  let earlier = /** @type {string | null} */ (null);
  let isLonger = false;

  return {
    rows: () => [...newest, ...older],
    earlier: () => earlier,
    take(rows, path) {
      if (isLonger) older = before(rows, [...newest, ...older]);
      else earlier = path;
      newest = rows;
    },
    more(rows, path) {
      isLonger = true;
      older = [...older, ...before([...newest, ...older], rows)];
      earlier = path;
    },
    clear() {
      [newest, older, earlier, isLonger] = [[], [], null, false];
    },
  };
}

/**
 * Those of the others that stand before the last of these.
 * @template {Entry} Row
 * @param {Row[]} these
 * @param {Row[]} others
 */
function before(these, others) {
  const last = these.at(-1);
  const ids = new Set(these.map(({ id }) => id));
  return others.filter((row) => !ids.has(row.id) && last !== undefined && row.created_at <= last.created_at);
}
