// Asking again and again, while somebody looks: a hidden page asks nothing, and one that is seen again asks at once.

const LONGEST_MILLISECONDS = 15_000;

/** @typedef {{now(): void, stop(): void, signal: AbortSignal}} Polling */

/**
 * Do this now and, each time that it is done, `milliseconds` later again; later still while it fails.
 * @param {number} milliseconds
 * @param {(signal: AbortSignal) => Promise<unknown>} look
 * @param {(error: Error | null) => void} [failed] told of each failure, and of null behind the last one
 * @returns {Polling}
 */
export function polling(milliseconds, look, failed = () => {}) {
  const stopping = new AbortController();
  let timer = /** @type {ReturnType<typeof setTimeout> | undefined} */ (undefined);
  let failures = 0;
  let isLooking = false;
  let isWantedAgain = false;

  async function round() {
    clearTimeout(timer);
    if (stopping.signal.aborted || document.hidden) return;
    if (isLooking) {
      isWantedAgain = true;
      return;
    }
    isLooking = true;
    isWantedAgain = false;
    try {
      await look(stopping.signal);
      if (failures && !stopping.signal.aborted) failed(null);
      failures = 0;
    } catch (error) {
      if (stopping.signal.aborted) return;
      failures += 1;
      failed(/** @type {Error} */ (error));
    }
    isLooking = false;
    if (isWantedAgain) round();
    else
      timer = setTimeout(
        round,
        Math.min(milliseconds * 2 ** Math.min(failures, 10), Math.max(milliseconds, LONGEST_MILLISECONDS)),
      );
  }

  document.addEventListener("visibilitychange", round, { signal: stopping.signal });
  round();
  return {
    now: round,
    stop() {
      stopping.abort();
      clearTimeout(timer);
    },
    signal: stopping.signal,
  };
}
