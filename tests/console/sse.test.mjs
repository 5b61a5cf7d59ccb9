import assert from "node:assert/strict";
import { test } from "node:test";

import { eventStream } from "../../service/http/console/static/service/sse.js";

const TEXT =
  'retry: 1000\nid: 5-1\ndata: {"a":"ä€😀"}\n\n: hb\nid: 5-2\r\ndata: one\r\ndata:two\r\n\r\ndata: [DONE]\r\rid: 7\n\n';
const ITEMS = [
  { kind: "retry", milliseconds: 1000 },
  { kind: "frame", id: "5-1", data: '{"a":"ä€😀"}' },
  { kind: "comment" },
  { kind: "frame", id: "5-2", data: "one\ntwo" },
  { kind: "frame", id: null, data: "[DONE]" },
];

/** What is read when it comes in pieces of this size. */
function read(text, size) {
  const bytes = new TextEncoder().encode(text);
  const stream = eventStream();
  const items = [];
  for (let begin = 0; begin < bytes.length; begin += size) items.push(...stream.feed(bytes.slice(begin, begin + size)));
  return items;
}

test("the same items, in whatever pieces they come", () => {
  for (let size = 1; size <= TEXT.length; size += 1) assert.deepEqual(read(TEXT, size), ITEMS, `in pieces of ${size}`);
});

test("only CR, LF and CRLF end a line", () => {
  const data = "a\u2028b\u2029c\u0085d\vf";
  assert.deepEqual(read(`data: ${data}\n\n`, 7), [{ kind: "frame", id: null, data }]);
});

test("a line that is longer than any event is an error", () => {
  assert.throws(() => read(`data: ${"x".repeat(2 ** 20 + 2)}`, 2 ** 16), /longer than any event/);
});
