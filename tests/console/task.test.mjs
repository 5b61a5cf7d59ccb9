import assert from "node:assert/strict";
import { test } from "node:test";
import { concern, openFirst } from "../../service/http/console/static/model/task.js";

const NOW = Date.parse("2026-05-05T12:00:00Z");
const ago = (seconds) => new Date(NOW - seconds * 1000).toISOString();
const task = (given) => ({
  id: "a",
  kind: "turn",
  status: "running",
  error_type: null,
  created_at: ago(5),
  started_at: null,
  cancel_requested_at: null,
  ...given,
});

for (const [given, said] of [
  [{ status: "queued", created_at: ago(60) }, null],
  [{ status: "queued", created_at: ago(61) }, "is not begun"],
  [{ status: "queued", error_type: "timeout" }, "its last try failed: timeout"],
  [{ started_at: ago(600) }, null],
  [{ started_at: ago(601) }, "runs for long"],
  [{ started_at: ago(601), kind: "operation" }, null],
  [{ status: "waiting", created_at: ago(90_000) }, null],
  [{ cancel_requested_at: ago(30) }, null],
  [{ cancel_requested_at: ago(31) }, "is to be cancelled, and is not yet"],
  [{ status: "failed", error_type: "timeout", cancel_requested_at: ago(31) }, null],
]) {
  test(`${JSON.stringify(given)}: ${said}`, () => assert.equal(concern(task(given), NOW), said));
}

test("what is stuck is first, and then the oldest", () => {
  const listed = [
    task({ id: "young" }),
    task({ id: "old", created_at: ago(50) }),
    task({ id: "failing", status: "queued", error_type: "timeout", created_at: ago(3) }),
    task({ id: "slow", status: "queued", created_at: ago(80) }),
  ];
  assert.deepEqual(
    openFirst(listed, NOW).map(({ id }) => id),
    ["slow", "failing", "old", "young"],
  );
});

test("one that is listed twice is as far as it is known to be", () => {
  const listed = [task({ status: "queued" }), task({}), task({ id: "b" }), task({ id: "b", status: "failed" })];
  for (const order of [listed, [...listed].reverse()]) {
    assert.deepEqual(
      openFirst(order, NOW).map(({ id, status }) => [id, status]),
      [["a", "running"]],
    );
  }
});
