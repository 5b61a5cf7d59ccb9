// The fold and chunks of types that it does not know.

import assert from "node:assert/strict";
import { test } from "node:test";
import { apply, emptyFold } from "../../service/http/console/static/model/fold.js";

for (const type of ["__proto__", "constructor", "__defineGetter__", "toString", "data-unheard-of"]) {
  test(`a chunk of the type ${type} changes nothing`, () => {
    const fold = emptyFold();
    apply(fold, { type, id: "x" });
    assert.deepEqual(fold, emptyFold());
  });
}
