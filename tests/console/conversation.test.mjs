// A conversation as it is read from a service that goes on meanwhile.

import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";

globalThis.document = { baseURI: "http://127.0.0.1/" };
const { conversation } = await import("../../service/http/console/static/service/conversation.js");

const PAGE = 10; // messages
const TASKS = 50;
let said = 0; // turns, each of two messages
let others = []; // tasks of other kinds, the oldest first

beforeEach(() => {
  [said, others] = [0, []];
  globalThis.fetch = async (url) => Response.json(answered(new URL(url)));
});

/** @param {URL} url */
function answered({ pathname, searchParams }) {
  const before = Number(searchParams.get("before") ?? Infinity);
  return pathname === "/tasks" ? tasksBefore(before, searchParams.get("status")) : messagesBefore(before);
}

function messagesBefore(before) {
  const last = Math.min(before, 2 * said);
  const first = Math.max(0, last - PAGE);
  const messages = [...Array(last - first).keys()].map((place) => ({
    id: `m${first + place}`,
    task_id: `t${(first + place) >> 1}`,
  }));
  return { messages, pending: [], title: null, earlier: first ? `/sessions/s?before=${first}` : null };
}

function tasksBefore(before, status) {
  const turns = [...Array(said).keys()].map((n) => ({ id: `t${n}`, status: n ? "succeeded" : "failed" }));
  const all = [...turns, ...others].filter((task) => !status || task.status === status);
  const last = Math.min(before, all.length);
  const first = Math.max(0, last - TASKS);
  return { tasks: all.slice(first, last).reverse(), earlier: first ? `/tasks?before=${first}` : null };
}

const ids = (talk) => talk.messages().map(({ id }) => id);
const upTo = (end, begin = 0) => [...Array(end - begin).keys()].map((place) => `m${begin + place}`);

test("what was asked for stays in front, however often the newest are read", async () => {
  said = 15;
  const talk = conversation("s");
  await talk.read();
  assert.deepEqual(ids(talk), upTo(30, 20));
  assert.ok(await talk.readEarlier());
  assert.deepEqual(ids(talk), upTo(30, 10));
  for (said of [16, 17, 18, 22]) {
    await talk.read();
    assert.deepEqual(ids(talk), upTo(2 * said, 10));
  }
  assert.ok(await talk.readEarlier());
  assert.deepEqual([ids(talk), talk.hasEarlier()], [upTo(44), false]);
});

test("who has asked for nothing has the newest page alone, and so has whom it no longer joins", async () => {
  said = 15;
  const talk = conversation("s");
  await talk.read();
  said = 16;
  await talk.read();
  assert.deepEqual(ids(talk), upTo(32, 22));
  await talk.readEarlier();
  said = 40;
  await talk.read();
  assert.deepEqual([ids(talk), talk.hasEarlier()], [upTo(80, 70), true]);
});

test("a reading that comes behind a later one changes nothing", async () => {
  said = 1;
  const held = Promise.withResolvers ? Promise.withResolvers() : deferred();
  const answer = globalThis.fetch;
  const late = Response.json(messagesBefore(Infinity));
  globalThis.fetch = () => held.promise;
  const talk = conversation("s");
  const first = talk.read();
  globalThis.fetch = answer;
  said = 2;
  await talk.read();
  held.resolve(late);
  await first;
  assert.deepEqual(ids(talk), upTo(4));
});

function deferred() {
  let resolve;
  const promise = new Promise((done) => (resolve = done));
  return { promise, resolve };
}

test("what runs is found behind any number of operations, and how an old turn ended is learned", async () => {
  said = 3;
  others = [
    { id: "run", status: "running" },
    { id: "next", status: "queued" },
    ...[...Array(120).keys()].map((n) => ({ id: `o${n}`, status: "waiting" })),
  ];
  const talk = conversation("s");
  const tasks = await talk.look();
  assert.deepEqual(
    tasks.filter(({ status }) => status !== "waiting").map(({ id }) => id),
    ["run", "next"],
  );
  await talk.read();
  assert.equal(talk.tasks.get("t0"), undefined);
  await talk.learn();
  assert.equal(talk.tasks.get("t0").status, "failed");
  assert.equal(await talk.learn(), false);
});

test("a task that is nowhere is looked for once, and one that has ended unseen is not what it was", async () => {
  [said, others] = [1, [{ id: "run", status: "running" }, ...[...Array(60).keys()].map(other)]];
  const talk = conversation("s");
  await talk.look();
  await talk.read();
  talk.messages()[0].task_id = "nowhere";
  const asked = [];
  const answer = globalThis.fetch;
  globalThis.fetch = (url) => (asked.push(url), answer(url));
  assert.deepEqual([await talk.learn(), asked.length > 0], [true, true]);
  asked.length = 0;
  assert.deepEqual([await talk.learn(), asked], [false, []]);
  assert.equal(talk.tasks.get("run").status, "running");
  others[0] = { id: "run", status: "failed" };
  await talk.look();
  assert.equal(talk.tasks.get("run"), undefined); // not among the newest: it is asked for where a message is of it
});

const other = (n) => ({ id: `o${n}`, status: "succeeded" });
