import assert from "node:assert/strict";
import { test } from "node:test";
import { readJson } from "../../service/http/console/static/model/json_text.js";
import {
  failingFollowUp,
  isOverdue,
  isSettled,
  shownStatus,
} from "../../service/http/console/static/model/operation.js";

const NOW = Date.parse("2026-05-05T12:00:00.000Z");
const BEFORE = "2026-05-05T11:59:59.999Z";

for (const [operation, overdue, shown] of [
  [{ status: "pending", deadline: BEFORE }, true, "overdue"],
  [{ status: "pending", deadline: "2026-05-05T12:00:00.000Z" }, false, "pending"],
  [{ status: "pending", deadline: null }, false, "pending"],
  [{ status: "failed", deadline: BEFORE }, false, "failed"],
  [{}, false, ""],
]) {
  test(`${JSON.stringify(operation)} is ${overdue ? "" : "not "}overdue`, () => {
    assert.equal(isOverdue(operation, NOW), overdue);
    assert.equal(shownStatus(operation, NOW), shown);
  });
}

const followUp = (status, failedTries = 0) => ({ task_id: status, status, failed_tries: failedTries });

for (const [followUps, failing] of [
  [undefined, null],
  [[], null],
  [[followUp("failed", 5)], "failed"],
  [[followUp("queued", 1)], "queued"],
  [[followUp("queued")], null],
  [[followUp("running", 1)], null],
  [[followUp("failed", 5), followUp("succeeded")], null],
  [[followUp("succeeded"), followUp("failed", 5)], "failed"],
]) {
  test(`of ${JSON.stringify(followUps)} what fails is ${failing}`, () => {
    assert.equal(failingFollowUp({ follow_ups: followUps })?.task_id ?? null, failing);
  });
}

for (const [status, followUps, settled] of [
  ["pending", [], false],
  ["succeeded", [], true],
  ["succeeded", [followUp("running")], false],
  ["cancelled", [followUp("succeeded")], true],
  ["succeeded", [followUp("failed", 5)], false],
  ["succeeded", [followUp("failed", 5), followUp("queued")], false],
  ["succeeded", [followUp("failed", 5), followUp("succeeded")], true],
]) {
  test(`${status} with ${JSON.stringify(followUps)} is ${settled ? "" : "not "}settled`, () => {
    assert.equal(isSettled({ status, follow_ups: followUps }), settled);
  });
}

for (const text of ["null", '"a"', '{"a": [1, 2.5, -9007199254740991]}', "1e5"]) {
  test(`${text} is JSON`, () => assert.deepEqual(readJson(text), { value: JSON.parse(text) }));
}

for (const text of ["", "a", "{a: 1}", "'a'", '{"a": [12345678901234567890]}', "1e400"]) {
  test(`${text} is not, and that is said`, () => assert.match(readJson(text).problem, /double quotes/));
}
