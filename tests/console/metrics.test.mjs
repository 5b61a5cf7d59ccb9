import assert from "node:assert/strict";
import { test } from "node:test";
import { backlog, ofProcess } from "../../service/http/console/static/model/figures.js";
import { stretches } from "../../service/http/console/static/model/line.js";
import { bound, parseMetrics, rate, total } from "../../service/http/console/static/model/metrics.js";

const one = (text) => {
  const samples = parseMetrics(text);
  assert.equal(samples.length, 1, text);
  return samples[0];
};

for (const [line, expected] of [
  ["up 1", { name: "up", labels: {}, value: 1 }],
  ["up{} 1", { name: "up", labels: {}, value: 1 }],
  ['a:b_c{x="1",y="z"} 2.5e-05', { name: "a:b_c", labels: { x: "1", y: "z" }, value: 2.5e-5 }],
  ['a{x="1",} -3 1395066363000', { name: "a", labels: { x: "1" }, value: -3 }],
  ['a{x="} 7, y=\\"\\\\\\n"} 1', { name: "a", labels: { x: '} 7, y="\\\n' }, value: 1 }],
  ['a{le="+Inf"} +Inf', { name: "a", labels: { le: "+Inf" }, value: Infinity }],
  ["a -Inf", { name: "a", labels: {}, value: -Infinity }],
  ["a NaN\r", null],
  ["a NaN ", { name: "a", labels: {}, value: NaN }],
]) {
  test(`${line} is read`, () => {
    if (expected === null) assert.deepEqual(parseMetrics(line), []);
    else assert.deepEqual(one(line), expected);
  });
}

for (const line of ["", "# HELP a b", "# TYPE a counter", "a", "a b", "1a 2", 'a{x="1} 2', 'a{x="1" 2']) {
  test(`${JSON.stringify(line)} says nothing`, () => assert.deepEqual(parseMetrics(line), []));
}

test("lines are read one by one", () => {
  assert.deepEqual(
    parseMetrics("# HELP a\na 1\n\nb 2\nnonsense\nc 3").map(({ name, value }) => [name, value]),
    [
      ["a", 1],
      ["b", 2],
      ["c", 3],
    ],
  );
});

test("a hostile line takes no time", { timeout: 2000 }, () => {
  for (const piece of ['"', '\\"', 'x="', 'x="a",', "{", "a{"]) parseMetrics(`a{${piece.repeat(50_000)}`);
});

const SAMPLES = parseMetrics('a{x="1"} 2\na{x="2"} 3\nb NaN\nc 0');

test("samples add up", () => {
  assert.equal(total(SAMPLES, "a"), 5);
  assert.equal(total(SAMPLES, "a", { x: "2" }), 3);
  assert.equal(total(SAMPLES, "c"), 0);
});

test("what is not there, or not known, is not nought", () => {
  assert.equal(total(SAMPLES, "d"), null);
  assert.equal(total(SAMPLES, "a", { x: "3" }), null);
  assert.equal(total(SAMPLES, "b"), null);
});

const at = (seconds, text) => ({ at: seconds * 1000, samples: parseMetrics(text) });

test("a rate is by the second", () => {
  assert.equal(rate(at(10, 'a{x="1"} 4\na{x="2"} 1'), at(12, 'a{x="1"} 9\na{x="2"} 6'), "a"), 5);
  assert.equal(rate(at(10, ""), at(12, "a 4"), "a"), 2, "a counter begins at nought");
});

test("a rate is not known at first, of a new process, at the same moment, or of what is not counted", () => {
  assert.equal(rate(null, at(12, "a 4"), "a"), null);
  assert.equal(rate(at(10, "a 5"), at(12, "a 4"), "a"), null);
  assert.equal(rate(at(12, "a 1"), at(12, "a 4"), "a"), null);
  assert.equal(rate(at(10, "a 1"), at(12, ""), "a"), null);
});

const histogram = (...counts) =>
  ["0.1", "0.5", "+Inf"].map((le, place) => `h_bucket{le="${le}",to="x"} ${counts[place]}`).join("\n");

for (const [before, now, expected] of [
  [null, histogram(95, 100, 100), 0.1],
  [null, histogram(94, 100, 100), 0.5],
  [null, histogram(0, 0, 1), Infinity],
  [null, histogram(0, 0, 0), null],
  [null, "", null],
  [histogram(90, 90, 90), histogram(90, 100, 100), 0.5],
  [histogram(90, 90, 90), histogram(90, 90, 90), null],
  [histogram(90, 90, 90), histogram(1, 1, 1), null],
]) {
  test(`of ${JSON.stringify(now)} behind ${JSON.stringify(before)} 19 of 20 are within ${expected}`, () => {
    assert.equal(bound(0.95, before === null ? null : at(1, before), at(2, now), "h"), expected);
  });
}

test("histograms of several labels are one", () => {
  const text = `${histogram(0, 10, 10)}\n${histogram(90, 90, 90).replaceAll('to="x"', 'to="y"')}`;
  assert.equal(bound(0.95, null, at(1, text), "h"), 0.5);
});

test("figures that are not told are left out, and those that somebody should look at stand out", () => {
  const text =
    'playhead_backlog{kind="overdue"} 2\nplayhead_backlog{kind="lapsed"} 0\nplayhead_oldest_queued_seconds NaN';
  assert.deepEqual(
    backlog(at(1, text)).map(({ label, value, isBad }) => [label, value, isBad]),
    [
      ["Leases lapsed", 0, false],
      ["Operations overdue", 2, true],
    ],
  );
  assert.deepEqual(ofProcess(null, at(1, "")), []);
});

test("a line is as high as its highest figure, and ends at the right", () => {
  assert.deepEqual(stretches([0, 2, 4], 10, 20), ["7,20 8,10 9,0"]);
  assert.deepEqual(stretches([0, 0], 10, 20), ["8,20 9,20"]);
});

test("what is not known breaks it, and what stands alone is a dot", () => {
  assert.deepEqual(stretches([null, 4, null, 2, 4], 10, 20), ["6,0 6,0", "8,10 9,0"]);
  assert.deepEqual(stretches([], 10, 20), []);
});
