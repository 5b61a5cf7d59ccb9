// The fold and chunks that it does not know, or that lack something.

import assert from "node:assert/strict";
import { test } from "node:test";
import { apply, emptyFold, textOf } from "../../service/http/console/static/model/fold.js";

for (const type of ["__proto__", "constructor", "__defineGetter__", "toString", "data-unheard-of"]) {
  test(`a chunk of the type ${type} changes nothing`, () => {
    const fold = emptyFold();
    apply(fold, { type, id: "x" });
    assert.deepEqual(fold, emptyFold());
  });
}

test("a chunk without the fields of its type is passed over, and the next one counts", () => {
  const fold = emptyFold();
  for (const type of [
    "start",
    "finish",
    "data-attempt",
    "message-metadata",
    "tool-input-available",
    "data-operation",
  ]) {
    apply(fold, { type });
  }
  apply(fold, { type: "text-start", id: "t" });
  apply(fold, { type: "text-delta", id: "t", delta: "Hello" });
  assert.equal(textOf(fold), "Hello");
});
