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
  const made = recording(emptyFold(), 1, limits);
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
  const made = recording(emptyFold(), 1, LIMITS);
  for (let begin = 0; begin < events.length; begin += 5) {
    made.add(events.slice(begin, begin + 5));
    assert.deepEqual(made.foldAt(made.events.length), folded(events.slice(0, begin + 5)));
    assert.deepEqual(made.foldAt(begin), folded(events.slice(0, begin)));
  }
});

test("it goes on from a message", () => {
  const events = randomLog(5);
  const first = recorded(events.slice(0, 30));
  const second = recording(first.foldAt(30), 31, LIMITS);
  first.foldAt(3);
  second.add(events.slice(30));
  assert.deepEqual(second.foldAt(events.length), folded(events));
  assert.deepEqual(second.foldAt(0), folded(events.slice(0, 30)));
});

test("what is beyond a bound is not taken", () => {
  const events = eventsOf(Array.from({ length: 20 }, () => text("p", "x")));
  const few = recorded(events, { ...LIMITS, events: 8 });
  assert.deepEqual([few.events.length, few.isFull(), few.add(events.slice(8))], [8, true, 0]);
  const small = recording(emptyFold(), 1, { ...LIMITS, bytes: events[0].bytes * 3 });
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
  const events = eventsOf(Array.from({ length: 9 }, () => text("p", "a")));
  assert.deepEqual(recorded(events).missing, []);
  const made = recorded(events.filter(({ position }) => ![1, 2, 5].includes(position.n)));
  assert.deepEqual(made.missing, [
    { place: 0, lost: 2 },
    { place: 2, lost: 1 },
  ]);
  const again = { ...events[8], position: { ms: events[8].position.ms + 1, n: 8 } };
  made.add([again]);
  assert.deepEqual(made.missing[2], { place: 6, lost: 0 });
  const later = recording(emptyFold(), 4, LIMITS);
  later.add(events.slice(3));
  assert.deepEqual(later.missing, []);
});

test("a short message is its own excerpt", () => {
  const fold = folded(randomLog(2));
  assert.deepEqual(excerptOf(fold), { fold, parts: 0, characters: 0 });
});

test("of a long message the last parts are left, and what is left out is counted", () => {
  const fold = folded(randomLog(4, 60));
  assert.ok(fold.parts.length > 200);
  const { fold: excerpt, parts, characters } = excerptOf(fold);
  assert.equal(characters, 0);
  assert.ok(excerpt.parts.length > 30 && excerpt.parts.length <= 40, String(excerpt.parts.length));
  assert.equal(parts + excerpt.parts.length, fold.parts.length);
  assert.deepEqual(excerpt.parts, fold.parts.slice(parts));
  assert.deepEqual(
    excerpt.notes.map((note) => ({ ...note, place: note.place + parts })),
    fold.notes.filter((note) => note.place >= parts),
  );
});

test("of a long text its end is left, and what stands behind it", () => {
  const fold = folded(randomLog(4, 3));
  fold.parts.push({ type: "text", id: "long", text: "abcdefgh".repeat(9_000) }, { type: "text", id: "z", text: "end" });
  const { fold: excerpt, parts, characters } = excerptOf(fold);
  const [long, end] = excerpt.parts;
  assert.deepEqual([excerpt.parts.length, end.text, parts], [2, "end", fold.parts.length - 2]);
  assert.ok(long.text.length > 6 * 1024 && long.text.length <= 8 * 1024);
  assert.equal(characters + long.text.length, 72_000);
  assert.ok(textOf(fold).endsWith(`${long.text}end`));
});

test("the excerpt of a message that grows begins elsewhere only now and then", () => {
  const made = recorded(randomLog(6, 80));
  const begins = new Set();
  for (let shown = 1; shown <= made.events.length; shown++) begins.add(excerptOf(made.foldAt(shown)).parts);
  assert.ok(begins.size > 5 && begins.size <= made.foldAt(made.events.length).parts.length / 10, String(begins.size));
});
