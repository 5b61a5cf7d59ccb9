// A place that is scrolled: who is at its end stays there, however it grows, until they scroll away from it.

const NEAR_PIXELS = 40;

/**
 * @param {HTMLElement} scroll
 * @param {HTMLElement} content what grows in it
 */
export function pinned(scroll, content) {
  let isPinned = true;
  let lastTop = 0;
  scroll.addEventListener("scroll", () => {
    const { scrollTop, clientHeight, scrollHeight } = scroll;
    if (scrollTop + clientHeight >= scrollHeight - NEAR_PIXELS) isPinned = true;
    else if (scrollTop < lastTop) isPinned = false; // what grows below moves nothing up: somebody did
    lastTop = scrollTop;
  });
  const growing = new ResizeObserver(() => {
    if (isPinned) scroll.scrollTop = scroll.scrollHeight;
  });
  growing.observe(scroll);
  growing.observe(content);
  return {
    /** From now on, wherever it is now. */
    pin() {
      isPinned = true;
    },
    close: () => growing.disconnect(),
  };
}
