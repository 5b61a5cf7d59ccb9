import assert from "node:assert/strict";
import { test } from "node:test";
import { pace } from "../../service/http/console/static/model/pace.js";
import { eventsOf, text } from "./logs.mjs";

const five = (gaps) =>
  eventsOf(
    Array.from({ length: 5 }, () => text("p", "x")),
    gaps,
  );

test("at the original speed events come when they came", () => {
  const running = pace(five({ 1: 100, 2: 100, 3: 0, 4: 300 }), 1);
  assert.deepEqual(
    [99, 1, 99, 1, 299, 1, 1000].map((milliseconds) => running.advance(milliseconds, 1)),
    [1, 2, 2, 4, 4, 5, 5],
  );
});

test("four times as fast", () => {
  const running = pace(five({ 1: 100, 2: 100, 3: 100, 4: 100 }), 1);
  assert.deepEqual([running.advance(25, 4), running.advance(50, 4), running.advance(25, 4)], [2, 4, 5]);
});

test("from any position", () => {
  const running = pace(five({ 1: 5000, 2: 100, 3: 100 }), 2);
  assert.equal(running.advance(100, 1), 3);
});

test("as fast as can be, a share of the log at once, and all of it", () => {
  const events = eventsOf(Array.from({ length: 3000 }, () => text("p", "x")));
  const running = pace(events, 0);
  assert.equal(running.advance(1, "max"), 50);
  for (let look = 0; look < 59; look++) running.advance(1, "max");
  assert.equal(running.advance(1, "max"), 3000);
});

test("speed may change on the way", () => {
  const running = pace(five({ 1: 100, 2: 100, 3: 100, 4: 100 }), 1);
  assert.equal(running.advance(0, "max"), 2);
  assert.equal(running.advance(100, 1), 3);
});

test("silence is told, waited for, or passed over", () => {
  const waiting = pace(five({ 1: 60_000 }), 1);
  assert.deepEqual([waiting.silence(), waiting.advance(1000, 1), waiting.silence()], [60_000, 1, 59_000]);
  waiting.skip();
  assert.equal(waiting.advance(0, 1), 2);
  const skipping = pace(five({ 1: 60_000, 2: 1000 }), 1, () => true);
  assert.deepEqual([skipping.advance(0, 1), skipping.advance(999, 1), skipping.advance(1, 1)], [2, 2, 3]);
});

test("a log that grows goes on", () => {
  const events = five();
  const running = pace(events, 5);
  assert.deepEqual([running.advance(100, 1), running.silence()], [5, 0]);
  events.push({ position: { ms: events[4].position.ms + 50, n: 6 } });
  assert.equal(running.advance(10, 1), 6);
});
