// A page that nobody sees for a while holds no connection: a browser has few for one service, and what is missed comes
// at once when it is seen again.

const UNSEEN_MILLISECONDS = 30_000;

/**
 * Keep a reader connected while the page is seen.
 * @param {() => {cut(): void, resume(): void} | null} reader the one that is to be connected now, if any is
 * @returns {() => void} ends this
 */
export function whileSeen(reader) {
  const ending = new AbortController();
  let timer = /** @type {ReturnType<typeof setTimeout> | undefined} */ (undefined);
  let isUnseen = false;

  function changed() {
    clearTimeout(timer);
    if (document.hidden) {
      timer = setTimeout(() => {
        isUnseen = true;
        reader()?.cut();
      }, UNSEEN_MILLISECONDS);
    } else if (isUnseen) {
      isUnseen = false;
      reader()?.resume();
    }
  }

  document.addEventListener("visibilitychange", changed, { signal: ending.signal });
  changed(); // it may have been opened behind another one
  return () => {
    ending.abort();
    clearTimeout(timer);
  };
}
