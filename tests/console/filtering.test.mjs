import assert from "node:assert/strict";
import { test } from "node:test";
import { filtering } from "../../service/http/console/static/model/filtering.js";
import { FAMILIES, familyOf, summaryOf } from "../../service/http/console/static/model/summary.js";
import { CALLED, FINISH, START, attempt, call, eventsOf, operation, output, randomLog, retry, text } from "./logs.mjs";

const EVENTS = eventsOf([
  START,
  attempt(1),
  text("p", "Some Cheese"),
  call("c"),
  output("c"),
  text("p", "more"),
  FINISH,
]);
const ALL_BUT = (...families) => new Set(FAMILIES.filter((family) => !families.includes(family)));

function chosen(choice, events = EVENTS) {
  const made = filtering(events);
  made.choose(choice);
  while (!made.advance(2));
  return Array.from({ length: made.length() }, (_, row) => made.place(row));
}

test("all, at first", () => {
  const made = filtering(EVENTS);
  assert.deepEqual([made.length(), made.place(3), made.row(3), made.row(99)], [7, 3, 3, 6]);
});

test("some families, some text", () => {
  assert.deepEqual(chosen({ without: ALL_BUT("text"), text: "" }), [2, 5]);
  assert.deepEqual(chosen({ without: ALL_BUT("text"), text: " CHEESE" }), [2]);
  assert.deepEqual(chosen({ without: new Set(), text: "tool-out" }), [4]);
  assert.deepEqual(chosen({ without: new Set(), text: "nothing of it" }), []);
});

test("the row of an event, or of the last one in front of it", () => {
  const made = filtering(EVENTS);
  made.choose({ without: ALL_BUT("text"), text: "" });
  made.advance(99);
  assert.deepEqual([made.row(1), made.row(2), made.row(4), made.row(5), made.row(6)], [-1, 0, 0, 1, 1]);
});

test("a stretch at a time, and on as the log grows", () => {
  const events = EVENTS.slice(0, 3);
  const made = filtering(events);
  made.choose({ without: ALL_BUT("text"), text: "" });
  assert.deepEqual([made.advance(2), made.length(), made.advance(2), made.length()], [false, 0, true, 1]);
  events.push(...EVENTS.slice(3));
  assert.deepEqual([made.advance(99), made.length()], [true, 2]);
  assert.deepEqual(made.counts(), { ...made.counts(), lifecycle: 3, text: 2, tools: 2, steps: 0 });
});

test("a text is found however far behind it stands", () => {
  const long = "x".repeat(1000);
  const events = eventsOf([
    text("p", `${long} Needle`),
    output("c", { output: { long, at: "needle" } }),
    text("p", long),
  ]);
  assert.deepEqual(chosen({ without: new Set(), text: "needle" }, events), [0, 1]);
  const unlike = { type: "finish", long, at: "needle" }; // its fields are not those of a finish
  assert.deepEqual(chosen({ without: new Set(), text: "needle" }, eventsOf([unlike])), [0]);
});

test("a stretch of events that say much is a short one", () => {
  const events = eventsOf(Array.from({ length: 9 }, () => text("p", "x".repeat(600_000))));
  const made = filtering(events);
  made.choose({ without: new Set(), text: "x" });
  assert.deepEqual([made.advance(99), made.length()], [false, 2]);
  while (!made.advance(99));
  assert.equal(made.length(), 9);
});

test("every type has a family", () => {
  assert.equal(familyOf("data-of-tomorrow"), "data");
  assert.equal(familyOf("constructor"), "data");
  for (const { chunk } of randomLog(1)) assert.ok(FAMILIES.includes(familyOf(chunk.type)));
});

test("what an event says", () => {
  const SAID = [
    [text("p", "a\nb"), "a\nb"],
    [attempt(3), "epoch 3"],
    [retry(2), "rate_limit: try 2 in 2 s"],
    [call("c"), 'think {"a":1}'],
    [output("c", { preliminary: true }), 'so far "ok"'],
    [operation("o", "pending"), "timer pending"],
    [CALLED, "stop, 3 + 4 tokens, 5 ms"],
    [FINISH, "succeeded: done"],
    [{ type: "data-of-tomorrow", data: [1], transient: true }, '{"data":[1]}'],
    [{ type: "constructor" }, "{}"],
    [{ type: "finish" }, "{}"],
    [{ type: "text-delta", delta: null }, "null"],
    [text("p", "x".repeat(500)), `${"x".repeat(300)}…`],
  ];
  for (const [chunk, said] of SAID) assert.equal(summaryOf(chunk), said);
});
