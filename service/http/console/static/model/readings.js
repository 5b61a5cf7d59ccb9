// Of readings that overlap, each is shown that was not asked for before the one that is shown.

/**
 * @template Answer
 * @template {unknown[]} Given
 * @param {(...given: Given) => Promise<Answer>} read
 * @param {(answer: Answer) => void} show
 * @returns {(...given: Given) => Promise<void>} reads, and shows it
 */
export function inOrder(read, show) {
  let asked = 0;
  let shown = 0;
  return async (...given) => {
    const mine = (asked += 1);
    const answer = await read(...given);
    if (mine < shown) return;
    shown = mine;
    show(answer);
  };
}
