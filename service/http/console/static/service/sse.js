// Server-sent events out of bytes, in whatever pieces they come. Lines end with CR, LF or CRLF and nothing else; a
// frame without data is none. A line that is longer than any event can be is an error: nothing else bounds what is
// kept.

/** @typedef {{kind: "frame", id: string | null, data: string}} Frame */
/** @typedef {Frame | {kind: "comment"} | {kind: "retry", milliseconds: number}} Item */

const MAX_LINE_CHARACTERS = 1024 * 1024;

/**
 * A parser of one connection's bytes.
 * @returns {{feed(bytes: Uint8Array): Generator<Item>}}
 */
export function eventStream() {
  const decoder = new TextDecoder();
  const lineEnd = /\r\n|\n|\r/g;
  let rest = "";
  let id = /** @type {string | null} */ (null);
  let data = /** @type {string[]} */ ([]);

  /** @param {string} line @returns {Item | null} */
  function take(line) {
    if (line === "") return dispatch();
    if (line.startsWith(":")) return { kind: "comment" };
    const colon = line.indexOf(":");
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + (line[colon + 1] === " " ? 2 : 1));
    if (name === "data") data.push(value);
    if (name === "id") id = value;
    return name === "retry" && /^[0-9]{1,9}$/.test(value) ? { kind: "retry", milliseconds: Number(value) } : null;
  }

  /** @returns {Item | null} */
  function dispatch() {
    const frame = data.length ? /** @type {const} */ ({ kind: "frame", id, data: data.join("\n") }) : null;
    id = null;
    data = [];
    return frame;
  }

  return {
    *feed(bytes) {
      rest += decoder.decode(bytes, { stream: true });
      let begin = 0;
      lineEnd.lastIndex = 0;
      for (let end = lineEnd.exec(rest); end; end = lineEnd.exec(rest)) {
        if (end[0] === "\r" && lineEnd.lastIndex === rest.length) break; // its LF may be still to come
        const item = take(rest.slice(begin, end.index));
        begin = lineEnd.lastIndex;
        if (item) yield item;
      }
      rest = rest.slice(begin);
      if (rest.length > MAX_LINE_CHARACTERS) throw new Error("A line is longer than any event.");
    },
  };
}
