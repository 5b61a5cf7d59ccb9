// What a session is called by what is said first.

import assert from "node:assert/strict";
import { test } from "node:test";
import { titleOf } from "../../service/http/console/static/model/title.js";

test("its first line, whatever stands around it", () => {
  assert.equal(titleOf("\n  One. \nTwo."), "One. ");
  assert.equal(titleOf("x".repeat(60)), "x".repeat(60));
});

test("of a long one the beginning", () => assert.equal(titleOf("x".repeat(1_000_000)), `${"x".repeat(59)}…`));

test("no character is cut in two", () => {
  for (const before of [57, 58, 59, 60, 120, 121]) {
    assert.ok(titleOf("x".repeat(before) + "😀".repeat(70)).isWellFormed(), `behind ${before}`);
    assert.ok(titleOf("😀".repeat(before) + "x".repeat(70)).isWellFormed(), `${before} of them`);
  }
  assert.equal(titleOf("😀".repeat(60)), "😀".repeat(60));
});
