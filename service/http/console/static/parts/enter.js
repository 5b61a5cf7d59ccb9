// How what is written in several lines is sent: by Enter, as Shift and Enter begin a new line. While an input method
// composes a word, Enter is its own.

/** @param {() => unknown} send @returns {(event: KeyboardEvent) => void} a listener for keys that are pressed */
export function onEnter(send) {
  return (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    send();
  };
}
