// Keys that do the same wherever somebody writes.

/**
 * What is written in several lines is sent by Enter, as Shift and Enter begin a new line. While an input method
 * composes a word, Enter is its own.
 * @param {() => unknown} send
 * @returns {(event: KeyboardEvent) => void} a listener for keys that are pressed
 */
export function onEnter(send) {
  return (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    send();
  };
}

/**
 * Escape leaves it; while an input method composes a word, it is that one's.
 * @param {() => unknown} leave
 * @returns {(event: KeyboardEvent) => void}
 */
export function onEscape(leave) {
  return (event) => {
    if (event.key === "Escape" && !event.isComposing) leave();
  };
}
