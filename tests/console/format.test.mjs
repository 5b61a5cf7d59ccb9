// How values are shown that somebody else has written.

import assert from "node:assert/strict";
import { test } from "node:test";
import { jsonText, reveal } from "../../service/http/console/static/parts/format.js";

const HIDDEN = "200b 202e 2066 00ad 034f 115f 17b4 180b 2028 2800 3164 fe0f feff ffa0 0000 e0041 e0100".split(" ");

for (const code of HIDDEN) {
  test(`U+${code.toUpperCase()} is seen`, () => {
    const shown = reveal(`a${String.fromCodePoint(Number.parseInt(code, 16))}b`);
    assert.match(shown, /^a(\\u[0-9a-f]{4}){1,2}b$/);
  });
}

test("what can be seen stays", () => {
  const text = "Grüße, 日本語, שלום, 한글, 😀\n\tx";
  assert.equal(reveal(text), text);
  assert.deepEqual(JSON.parse(jsonText({ text })), { text });
});
