// What a tab keeps, where it may and where it may not.

import assert from "node:assert/strict";
import { test } from "node:test";

const room = new Map();
let isFull = false;
let isDenied = false;
const storage = {
  getItem: (name) => room.get(name) ?? null,
  removeItem: (name) => room.delete(name),
  clear: () => room.clear(),
  setItem(name, text) {
    if (isFull) throw new DOMException("no room", "QuotaExceededError");
    room.set(name, text);
  },
};
Object.defineProperty(globalThis, "sessionStorage", {
  get() {
    if (isDenied) throw new DOMException("denied", "SecurityError");
    return storage;
  },
});
const { tab } = await import("../../service/http/console/static/service/tab.js");
const { givenBack } = await import("../../service/http/console/static/service/given_back.js");

test("it is kept, and forgotten", () => {
  tab.keep("a", "1");
  assert.deepEqual([tab.kept("a"), room.get("a")], ["1", "1"]);
  tab.forget("a");
  assert.equal(tab.kept("a"), null);
});

test("without room it is kept until the page is left, and what was kept before does not come back", () => {
  tab.keep("a", "1");
  isFull = true;
  tab.keep("a", "2");
  assert.deepEqual([tab.kept("a"), room.get("a")], ["2", undefined]);
  isFull = false;
  tab.keep("a", "3");
  assert.deepEqual([tab.kept("a"), room.get("a")], ["3", "3"]);
});

test("so is what may not be kept", () => {
  isDenied = true;
  tab.keep("b", "1");
  assert.equal(tab.kept("b"), "1");
  tab.forgetAll();
  assert.equal(tab.kept("b"), null);
  isDenied = false;
});

const failed = (n, more = {}) => ({ id: `t${n}`, kind: "turn", status: "failed", message_id: `m${n}`, ...more });

test("of what failed the newest may come back, and what this tab has said, each once", () => {
  const returning = givenBack("s");
  const tasks = [failed(5), failed(4), failed(3), failed(2, { status: "succeeded" }), failed(1)];
  const of = (...taken) => returning.of(tasks, new Set(taken)).map(({ id }) => id);
  assert.deepEqual(of(), ["t5"]);
  returning.said("m1");
  returning.said("m2");
  returning.said("m3");
  assert.deepEqual(of(), ["t1", "t3", "t5"]);
  assert.deepEqual(of("m3", "m5"), ["t1"]);
  assert.deepEqual(of(), ["t1", "t5"]); // what has stayed once is not looked for again
  returning.told(failed(1));
  returning.told(failed(5));
  assert.deepEqual(of(), []);
  assert.deepEqual(givenBack("other").of([failed(1), failed(2)], new Set()), [failed(1)]);
});
