import assert from "node:assert/strict";
import { test } from "node:test";
import { pages } from "../../service/http/console/static/model/pages.js";

const row = (number) => ({ id: `${number}`, created_at: new Date(number * 1000).toISOString() });
const rows = (...numbers) => numbers.map(row);
const ids = (list) => list.rows().map(({ id }) => Number(id));

/** One that has been read on to its beginning. */
function longer() {
  const list = pages();
  list.take(rows(4, 3), "/before-3");
  list.more(list.lengthen(), rows(2, 1), null);
  return list;
}

test("the newest page alone is what was last told", () => {
  const list = pages();
  list.take(rows(3, 2), "/before-2");
  list.take(rows(4, 3), "/before-3");
  assert.deepEqual([ids(list), list.earlier()], [[4, 3], "/before-3"]);
});

test("once it is longer nothing that leaves the newest page is lost, or there twice", () => {
  const list = longer();
  list.take(rows(5, 4), "/before-4");
  list.take(rows(6, 5), "/before-5");
  assert.deepEqual([ids(list), list.earlier()], [[6, 5, 4, 3, 2, 1], null]);
});

test("it is read on anew where more than a page has come meanwhile", () => {
  const list = longer();
  list.take(rows(8, 7), "/before-7");
  assert.deepEqual([ids(list), list.earlier()], [[8, 7], "/before-7"]);
  list.take(rows(9, 8), "/before-8");
  assert.deepEqual([ids(list), list.earlier()], [[9, 8], "/before-8"]);
});

test("what is not told any more between those that are is gone", () => {
  const list = longer();
  list.take(rows(4, 2), "/before-2");
  assert.deepEqual(ids(list), [4, 2, 1]);
  list.take(rows(4), null);
  assert.deepEqual([ids(list), list.earlier()], [[4], null]);
});

test("one that is gone is taken out of any page", () => {
  const list = longer();
  list.drop("4");
  list.drop("1");
  assert.deepEqual(ids(list), [3, 2]);
});

test("what leaves the newest page while the one before it is asked for is not lost", () => {
  const list = pages();
  list.take(rows(4, 3), "/before-3");
  const path = list.lengthen();
  list.take(rows(5, 4), "/before-4");
  list.more(path, rows(2, 1), null);
  assert.deepEqual([ids(list), list.earlier()], [[5, 4, 3, 2, 1], null]);
});

test("a page that was asked for before the list began anew is not in it", () => {
  for (const [newest, earlier] of [
    [[8, 7], "/before-7"],
    [[], null],
  ]) {
    const list = pages();
    list.take(rows(4, 3), "/before-3");
    const path = list.lengthen();
    list.clear();
    list.take(rows(...newest), earlier);
    list.more(path, rows(2, 1), null);
    assert.deepEqual([ids(list), list.earlier()], [newest, earlier]);
  }
});

test("a list that is begun again has nothing", () => {
  const list = longer();
  list.clear();
  assert.deepEqual([ids(list), list.earlier()], [[], null]);
  list.take(rows(4), null);
  assert.deepEqual([ids(list), list.earlier()], [[4], null]);
});
