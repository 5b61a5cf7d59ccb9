import assert from "node:assert/strict";
import { test } from "node:test";
import { drawn, drawnMarks, ticks, xOf } from "../../service/http/console/static/model/drawing.js";
import { spans } from "../../service/http/console/static/model/spans.js";
import { CALLED, FINISH, START, attempt, call, eventsOf, operation, output, randomLog, retry, text } from "./logs.mjs";

const T0 = 1_700_000_000_000;
const STEP = { type: "start-step" };
const END = { type: "finish-step" };
const RESET = { type: "reset-step" };

function spansOf(chunks, gaps) {
  const made = spans();
  eventsOf(chunks, gaps).forEach((event, place) => made.add(event, place));
  return made;
}

/** A lane, short: label, from, to, how it ended. */
function lane(made, name) {
  return made.list
    .filter((span) => span.lane === name)
    .map(({ label, begin, end, ended }) => [label, begin - T0, end === null ? null : end - T0, ended]);
}

const marksOf = (made) => made.marks.map(({ kind, at, place }) => [kind, at - T0, place]);

test("a step, its model call and its tools lie where their events lie", () => {
  const made = spansOf(
    [START, attempt(1), STEP, text("p", "a"), call("c1"), call("c2", "timer"), CALLED, output("c2"), output("c1"), END],
    { 3: 500, 7: 300, 8: 400 },
  );
  assert.deepEqual(lane(made, "attempts"), [["attempt 1, epoch 1", 10, null, ""]]);
  assert.deepEqual(lane(made, "steps"), [["step 1", 20, 1260, "ended"]]);
  assert.deepEqual(lane(made, "model"), [["model call", 20, 550, "3 + 4 tokens"]]);
  assert.equal(made.list.find((span) => span.lane === "model").output, T0 + 520);
  assert.deepEqual(lane(made, "tools"), [
    ["think", 530, 1250, "ended"],
    ["timer", 540, 850, "ended"],
  ]);
  assert.deepEqual(lane(made, "waits"), []);
  assert.deepEqual(marksOf(made), []);
});

test("a retry is waited for, and no silence beside it; the call begins again", () => {
  const made = spansOf([START, attempt(1), STEP, retry(2), RESET, text("p", "a"), CALLED, END], { 4: 2000 });
  assert.deepEqual(lane(made, "waits"), [["rate_limit: waits 2 s for try 2", 30, 2030, "ended"]]);
  assert.deepEqual(lane(made, "model"), [
    ["model call", 20, 30, "rate_limit"],
    ["model call", 2030, 2050, "3 + 4 tokens"],
  ]);
  assert.deepEqual(lane(made, "steps"), [["step 1", 20, 2060, "ended"]]);
  assert.deepEqual(marksOf(made), [["reset", 2030, 4]]);
});

test("another worker takes over: its attempt begins, the open step is done again", () => {
  const made = spansOf(
    [START, attempt(1), STEP, call("c"), attempt(4), RESET, call("c"), CALLED, output("c"), END, FINISH],
    {
      4: 9000,
    },
  );
  assert.deepEqual(lane(made, "attempts"), [
    ["attempt 1, epoch 1", 10, 9030, ""],
    ["attempt 2, epoch 4", 9030, 9090, "succeeded"],
  ]);
  assert.deepEqual(
    lane(made, "tools").map(([, begin, end, ended]) => [begin, end, ended]),
    [
      [30, 9040, "done again"],
      [9050, 9070, "ended"],
    ],
  );
  assert.deepEqual(marksOf(made), [
    ["take-over", 9030, 4],
    ["reset", 9040, 5],
    ["finish", 9090, 10],
  ]);
});

test("an operation is waited for until its end, whatever it says in between", () => {
  const chunks = [START, operation("o", "pending"), operation("o", "pending"), operation("o", "failed"), FINISH];
  const made = spansOf(chunks, { 2: 5000, 3: 60_000 });
  assert.deepEqual(lane(made, "waits"), [["operation timer", 10, 65_010, "failed"]]);
});

test("an approval is waited for until its answer", () => {
  const asks = { type: "tool-approval-request", approvalId: "a", toolCallId: "c" };
  const answers = { type: "tool-approval-response", approvalId: "a", approved: false };
  assert.deepEqual(lane(spansOf([START, asks, answers], { 2: 5000 }), "waits"), [["approval", 10, 5010, "denied"]]);
});

test("silence of more than a second is a wait, unless a tool runs", () => {
  const made = spansOf([START, STEP, text("p", "a"), text("p", "b"), call("c"), output("c"), END], {
    2: 1001,
    3: 1000,
    5: 7000,
  });
  assert.deepEqual(lane(made, "waits"), [["silence", 10, 1011, "ended"]]);
  assert.equal(made.list.find((span) => span.lane === "waits").place, 2);
});

test("what a log leaves open ends with it", () => {
  const made = spansOf([START, attempt(1), STEP, call("c"), { type: "error", errorText: "oh" }, FINISH]);
  assert.deepEqual(
    made.list.map(({ lane: each, end, ended }) => [each, end - T0, ended]),
    [
      ["attempts", 50, "succeeded"],
      ["steps", 50, "without an end"],
      ["model", 50, "without an end"],
      ["tools", 50, "without an end"],
    ],
  );
  assert.deepEqual(marksOf(made), [
    ["error", 40, 4],
    ["finish", 50, 5],
  ]);
});

test("what is missing is marked at the event behind it, and is no silence", () => {
  const made = spans();
  const [first, second] = eventsOf([START, text("p", "a")], { 1: 60_000 });
  made.add(first, 0);
  made.add({ ...second, position: { ...second.position, n: 9 } }, 1);
  assert.deepEqual(made.list, []);
  assert.deepEqual(marksOf(made), [["missing", 60_000, 1]]);
  assert.equal(made.marks[0].label, "7 events are missing");
  const later = spans(9);
  later.add({ ...second, position: { ...second.position, n: 9 } }, 0);
  assert.deepEqual(later.marks, []);
});

test("types that nobody knows, and chunks that cannot stand where they stand, change nothing", () => {
  const made = spansOf([output("c"), END, { type: "constructor" }, { type: "data-else", data: null }, CALLED]);
  assert.deepEqual([made.list, made.marks], [[], []]);
});

// --- as shapes -------------------------------------------------------------------------------------------------------

const WIDTH = 1000;
const shapesOf = (made, from, to, name) =>
  drawn(made.list, { from: T0 + from, to: T0 + to }, WIDTH).find((each) => each.lane === name);

test("a shape lies to scale", () => {
  const made = spansOf([START, STEP, text("p", "a"), CALLED, END], { 1: 1000, 2: 500, 3: 1500 });
  const [shape] = shapesOf(made, 0, 4000, "model").shapes;
  assert.deepEqual([shape.x, shape.width, shape.output, shape.place], [250, 500, 375, 1]);
  assert.equal(xOf(T0 + 2000, { from: T0, to: T0 + 4000 }, WIDTH), 500);
});

test("what lasts goes to the edge, what lies beside the window is not drawn", () => {
  const made = spansOf([START, STEP, CALLED], { 1: 1000, 2: 1000 });
  const [step] = shapesOf(made, 0, 4000, "steps").shapes;
  assert.deepEqual([step.x, step.width, step.isOpen], [250, 750, true]);
  assert.deepEqual(shapesOf(made, 3000, 4000, "model").shapes, []);
  const [within] = shapesOf(made, 1500, 2500, "model").shapes;
  assert.deepEqual([within.x, within.width], [0, 500]);
});

test("what overlaps lies in rows", () => {
  const calls = ["a", "b", "c", "d", "e", "f"].map((id) => call(id));
  const made = spansOf([START, ...calls, ...calls.map(({ toolCallId }) => output(toolCallId))], { 7: 1000 });
  const tools = shapesOf(made, 0, 1200, "tools");
  assert.equal(tools.rows, 4);
  assert.deepEqual(
    tools.shapes.map(({ row }) => row),
    [0, 1, 2, 3, 3, 3],
  );
});

test("however much there is, there are not too many shapes, and none is lost", () => {
  const made = spans();
  const events = Array.from({ length: 40 }, (_, seed) => randomLog(seed, 100)).flat();
  events.forEach(({ chunk }, place) => made.add({ chunk, position: { ms: T0 + place * 700, n: place + 1 } }, place));
  assert.ok(made.list.length > 10_000, String(made.list.length));
  for (const width of [300, 1400]) {
    const lanes = drawn(made.list, { from: T0, to: T0 + events.length * 700 }, width);
    const shapes = lanes.flatMap((each) => each.shapes);
    assert.ok(shapes.length <= 1500 && shapes.length > 20, String(shapes.length));
    assert.equal(
      shapes.reduce((sum, { count }) => sum + count, 0),
      made.list.length,
    );
    const marks = drawnMarks(made.marks, { from: T0, to: T0 + events.length * 700 }, width);
    assert.ok(marks.length <= 500);
    assert.equal(
      marks.reduce((sum, { count }) => sum + count, 0),
      made.marks.length,
    );
  }
});

test("an axis has round moments, few enough", () => {
  const at = (from, to, most) => ticks({ from: T0 + from, to: T0 + to }, T0, most).map((each) => each - T0);
  assert.deepEqual(at(0, 4300, 5), [0, 1000, 2000, 3000, 4000]);
  assert.deepEqual(at(1500, 4300, 3), [2000, 3000, 4000]);
  assert.deepEqual(at(0, 3_600_000, 4), [0, 1_200_000, 2_400_000, 3_600_000]);
  assert.deepEqual(at(0, 0, 5), [0]);
  assert.ok(at(0, 1e12, 6).length <= 7);
});
