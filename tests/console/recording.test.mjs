import assert from "node:assert/strict";
import { test } from "node:test";
import { excerptOf } from "../../service/http/console/static/model/excerpt.js";
import { apply, emptyFold, textOf } from "../../service/http/console/static/model/fold.js";
import { recording } from "../../service/http/console/static/model/recording.js";
import { chance, eventsOf, randomLog, text } from "./logs.mjs";

const LIMITS = { events: 10_000, bytes: 10_000_000, stretch: 7 };

function folded(events) {
  const fold = emptyFold();
  for (const { chunk } of events) apply(fold, chunk);
  return fold;
}

function recorded(events, limits = LIMITS) {
  const made = recording(emptyFold(), limits);
  made.add(events);
  return made;
}

for (let seed = 1; seed <= 12; seed++) {
  test(`the message at any event is that of the events so far (log ${seed})`, () => {
    const events = randomLog(seed);
    const made = recorded(events);
    const expected = Array.from({ length: events.length + 1 }, (_, shown) => folded(events.slice(0, shown)));
    for (let shown = 0; shown <= events.length; shown++) assert.deepEqual(made.foldAt(shown), expected[shown]);
    const next = chance(seed);
    for (let jump = 0; jump < 200; jump++) {
      const shown = Math.floor(next() * (events.length + 1));
      assert.deepEqual(made.foldAt(shown), expected[shown]);
    }
  });
}

test("events that come piece by piece, looked at in between, make the same", () => {
  const events = randomLog(3);
  const made = recording(emptyFold(), LIMITS);
  for (let begin = 0; begin < events.length; begin += 5) {
    made.add(events.slice(begin, begin + 5));
    assert.deepEqual(made.foldAt(made.events.length), folded(events.slice(0, begin + 5)));
    assert.deepEqual(made.foldAt(begin), folded(events.slice(0, begin)));
  }
});

test("it goes on from a message", () => {
  const events = randomLog(5);
  const first = recorded(events.slice(0, 30));
  const second = recording(first.foldAt(30), LIMITS);
  first.foldAt(3);
  second.add(events.slice(30));
  assert.deepEqual(second.foldAt(events.length), folded(events));
  assert.deepEqual(second.foldAt(0), folded(events.slice(0, 30)));
});

test("what is beyond a bound is not taken", () => {
  const events = eventsOf(Array.from({ length: 20 }, () => text("p", "x")));
  const few = recorded(events, { ...LIMITS, events: 8 });
  assert.deepEqual([few.events.length, few.isFull(), few.add(events.slice(8))], [8, true, 0]);
  const small = recording(emptyFold(), { ...LIMITS, bytes: events[0].bytes * 3 });
  assert.equal(small.add(events), 3);
  assert.deepEqual([small.bytes(), small.isFull()], [events[0].bytes * 3, true]);
  assert.equal(recorded(events).isFull(), false);
});

test("an event is found by its position, exactly", () => {
  const events = eventsOf([text("p", "a"), text("p", "b"), text("p", "c"), text("p", "d")], { 2: 0 });
  const made = recorded(events.toSpliced(1, 1));
  assert.deepEqual(
    events.map(({ position }) => made.placeOf(position)),
    [0, -1, 1, 2],
  );
  assert.equal(made.placeOf({ ms: events[0].position.ms + 1, n: 1 }), -1);
  assert.equal(made.placeOf({ ms: 0, n: 0 }), -1);
  assert.equal(made.placeOf({ ms: 2e12, n: 99 }), -1);
});

test("what is missing is known by the place behind it", () => {
  const events = eventsOf([text("p", "a"), text("p", "b")]);
  const made = recorded(events.slice(0, 1));
  made.miss(4);
  made.add(events.slice(1));
  assert.deepEqual(made.missing, [{ place: 1, lost: 4 }]);
});

test("a short message is its own excerpt", () => {
  const fold = folded(randomLog(2));
  assert.deepEqual(excerptOf(fold), { fold, parts: 0, characters: 0 });
});

test("of a long message the last parts and the ends of texts are left, and what is left out is counted", () => {
  const fold = folded(randomLog(4, 60));
  assert.ok(fold.parts.length > 200);
  fold.parts[fold.parts.length - 1].text = "abcdefgh".repeat(9_000);
  const { fold: excerpt, parts, characters } = excerptOf(fold);
  assert.ok(excerpt.parts.length >= 40 && excerpt.parts.length <= 60);
  assert.equal(parts + excerpt.parts.length, fold.parts.length);
  assert.deepEqual(excerpt.parts.slice(0, -1), fold.parts.slice(parts, -1));
  const last = excerpt.parts[excerpt.parts.length - 1].text;
  assert.ok(last.length > 16 * 1024 && last.length <= 24 * 1024);
  assert.equal(characters + last.length, 72_000);
  assert.ok(textOf(fold).endsWith(last));
  assert.deepEqual(
    excerpt.notes.map((note) => ({ ...note, place: note.place + parts })),
    fold.notes.filter((note) => note.place >= parts),
  );
});
