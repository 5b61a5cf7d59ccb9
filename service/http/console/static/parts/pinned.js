// A place that is scrolled: who is at its end stays there, however it grows or shrinks, until they scroll away from it.

const NEAR_PIXELS = 40;
const HAND_MILLISECONDS = 1000; // for so long it goes on scrolling behind what a hand did
const BY_HAND = ["wheel", "touchmove", "keydown", "pointerdown"];

/**
 * @param {HTMLElement} scroll
 * @param {HTMLElement} content what grows in it
 */
export function pinned(scroll, content) {
  let isPinned = true;
  let lastTop = 0;
  let lastHeight = 0;
  let handAt = -Infinity;
  for (const hand of BY_HAND) scroll.addEventListener(hand, () => (handAt = performance.now()), { passive: true });
  scroll.addEventListener("scroll", () => {
    const { scrollTop, clientHeight, scrollHeight } = scroll;
    // What shrinks and grows again moves up by itself: only a hand does while the height is another one.
    const isMoved = scrollHeight === lastHeight || performance.now() - handAt < HAND_MILLISECONDS;
    if (scrollTop + clientHeight >= scrollHeight - NEAR_PIXELS) isPinned = true;
    else if (scrollTop < lastTop && isMoved) isPinned = false;
    [lastTop, lastHeight] = [scrollTop, scrollHeight];
  });
  const growing = new ResizeObserver(() => {
    if (isPinned) scroll.scrollTop = scroll.scrollHeight;
    lastHeight = scroll.scrollHeight;
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
