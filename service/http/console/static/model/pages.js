// A list that is read from its newest end again and again, and on towards its beginning where somebody asks for that:
// what leaves the newest page then stays in the list. None is missing in between: where more than a page has come since
// it was last read, what was read before that is let go, to be asked for once more.

/** @typedef {{id: string, created_at: string}} Entry */

/**
 * @template {Entry} Row
 * @returns {{
 *   rows(): Row[],
 *   earlier(): string | null,
 *   take(rows: Row[], earlier: string | null): void,
 *   lengthen(): string | null,
 *   more(path: string | null, rows: Row[], earlier: string | null): void,
 *   drop(id: string): void,
 *   clear(): void,
 * }} `earlier` is the path of those before the last one; `lengthen` answers it to who is about to read them, for `more`
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
      const known = [...newest, ...older];
      isLonger &&= path !== null && known.some(({ id }) => rows.some((row) => row.id === id));
      older = isLonger ? before(rows, known) : [];
      if (!isLonger) earlier = path;
      newest = rows;
    },
    lengthen() {
      isLonger = true;
      return earlier;
    },
    more(asked, rows, path) {
      if (asked !== earlier) return; // these would no longer join what is there
      older = [...older, ...before([...newest, ...older], rows)];
      earlier = path;
    },
    drop(gone) {
      [newest, older] = [newest, older].map((rows) => rows.filter(({ id }) => id !== gone));
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
