// The reader against a service that misbehaves, over real sockets.

import assert from "node:assert/strict";
import { createServer } from "node:http";
import { afterEach, test } from "node:test";

globalThis.sessionStorage = { getItem: () => null };
globalThis.document = { baseURI: "" };
const { follow } = await import("../../service/http/console/static/service/follow.js");

const RETRY = "retry: 1\n";
const EVENTS = [
  ...[...Array(9).keys()].map((n) => ({ id: `7-${n + 1}`, chunk: { type: "text-delta", delta: `${n}` } })),
  { id: "7-10", chunk: { type: "finish", messageMetadata: {} } },
];
const frame = ({ id, chunk }) => `${id ? `id: ${id}\n` : ""}data: ${JSON.stringify(chunk)}\n\n`;
const numbered = (from, to) =>
  EVENTS.slice(from - 1, to)
    .map(frame)
    .join("");

let closing = [];
afterEach(() => {
  for (const close of closing) close();
  closing = [];
});

/** A service that answers each connection in its turn; `asked` are the positions that it was asked for. */
async function service(...answers) {
  const asked = [];
  const server = createServer((request, response) => {
    const answer = answers[Math.min(asked.length, answers.length - 1)];
    asked.push(request.headers["last-event-id"] ?? null);
    answer(response, asked.at(-1));
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  closing.push(() => (server.closeAllConnections(), server.close()));
  globalThis.document.baseURI = `http://127.0.0.1:${server.address().port}/`;
  return asked;
}

/** Sends this and breaks off. */
const broken = (text) => (response) => {
  response.writeHead(200, { "Content-Type": "text/event-stream" });
  response.write(RETRY + text, () => setImmediate(() => response.destroy()));
};
const whole = (text) => (response) => response.writeHead(200).end(RETRY + text);
const status = (number) => (response) => response.writeHead(number).end();

/** Follows until this holds; what came. */
async function followed(until = (reader) => ["ended", "refused"].includes(reader.state()), act = () => {}) {
  const ids = [];
  const gaps = [];
  const states = [];
  const reader = await new Promise((resolve) => {
    const look = () => {
      if (states.at(-1) !== made.state()) states.push(made.state());
      if (until(made)) resolve(made);
    };
    const made = follow("t", {
      events(events) {
        ids.push(...events.map(({ position }) => `${position.ms}-${position.n}`));
        act(made, ids);
        look();
      },
      changed: look,
      gap: (gap) => gaps.push({ ...gap, behind: ids.length }),
    });
    closing.push(() => made.close());
  });
  return { ids, gaps, states, reader };
}

const ALL = EVENTS.map(({ id }) => id);

test("connections that break off cost nothing", async () => {
  const asked = await service(
    broken(numbered(1, 3)),
    broken(""),
    broken(numbered(4, 4) + frame(EVENTS[4]).slice(0, 20)),
    whole(numbered(5, 10)),
  );
  const { ids, gaps, reader } = await followed();
  assert.deepEqual([ids, gaps, reader.state()], [ALL, [], "ended"]);
  assert.deepEqual(asked, [null, "7-3", "7-3", "7-4"]);
  assert.deepEqual([reader.received(), reader.reconnects()], [10, 3]);
});

test("what was given out is never given again", async () => {
  await service(broken(numbered(1, 5)), broken(numbered(1, 7)), whole(numbered(1, 10)));
  const { ids, gaps } = await followed();
  assert.deepEqual([ids, gaps], [ALL, []]);
});

test("a hole that nobody told of is told, once", async () => {
  await service(whole(numbered(1, 3) + numbered(7, 10)));
  const { ids, gaps } = await followed();
  assert.deepEqual(
    ids,
    ALL.filter((_, place) => place < 3 || place > 5),
  );
  assert.deepEqual(gaps, [{ requested: "7-3", oldest: "7-7", latest: "7-7", lost: 3, behind: 3 }]);
});

test("a gap that the service tells is told, once", async () => {
  const gap = { requested: "7-3", oldest: "7-7", latest: "7-10", lost: 3 };
  await service(broken(numbered(1, 3)), whole(frame({ chunk: { type: "data-gap", data: gap } }) + numbered(7, 10)));
  const { ids, gaps } = await followed();
  assert.equal(ids.length, 7);
  assert.deepEqual(gaps, [{ ...gap, behind: 3 }]);
});

test("behind its end, a log is over where the service says so", async () => {
  const asked = await service(whole(`${frame(EVENTS[9])}data: [DONE]\n\n`));
  const reader = await new Promise((resolve) => {
    const changed = () => ["ended", "cut"].includes(made.state()) && resolve(made);
    const made = follow("t", { events: () => {}, changed }, { ms: 8, n: 99 });
    closing.push(() => made.close());
  });
  assert.deepEqual([asked, reader.state(), reader.received()], [["8-99"], "ended", 0]);
});

test("an event that took the place of a lost one is new", async () => {
  await service(
    broken(numbered(1, 3)),
    whole(`id: 9-3\ndata: {"type":"x"}\n\n${frame({ id: "9-4", chunk: { type: "finish" } })}`),
  );
  const { ids, gaps } = await followed();
  assert.deepEqual(ids, ["7-1", "7-2", "7-3", "9-3", "9-4"]);
  assert.equal(gaps.length, 1);
});

test("what stands before something that cannot be read is not lost", async () => {
  const asked = await service(whole(`${numbered(1, 3)}id: 7-4\ndata: {"type\n\n`), whole(numbered(4, 10)));
  assert.deepEqual((await followed()).ids, ALL);
  assert.deepEqual(asked, [null, "7-3"]);
});

test("who listens may fail; the reader goes on", async () => {
  const asked = await service(whole(numbered(1, 10)));
  const reported = [];
  globalThis.reportError = (error) => reported.push(error.message);
  const { ids } = await followed(undefined, () => {
    throw new Error("oh");
  });
  assert.deepEqual([ids, asked.length], [ALL, 1]);
  assert.ok(reported.every((message) => message === "oh") && reported.length);
});

test("cut after so many events, wherever they stand in what has come", async () => {
  await service(whole(numbered(1, 10)), whole(numbered(1, 10)));
  const { ids } = await followed(
    (made) => (made.state() === "catching up" && made.cutAfter(4), made.state() === "cut"),
  );
  assert.deepEqual(ids, ALL.slice(0, 4));
});

test("an event that comes in pieces is no silence", async () => {
  const large = { id: "7-4", chunk: { type: "text-delta", delta: "a".repeat(300_000) } };
  await service(whole(numbered(1, 3) + frame(large) + numbered(5, 10)));
  const { ids, states } = await followed();
  assert.deepEqual([ids, states], [ALL, ["catching up", "ended"]]);
});

/** Opens the connection, and has nothing to say. */
const silent = (response) => response.writeHead(200, { "Content-Type": "text/event-stream" }).flushHeaders();

test("who has missed nothing is live, though nothing comes", { timeout: 20_000 }, async () => {
  const asked = await service(broken(numbered(1, 3)), silent);
  const { ids, reader } = await followed((made) => made.reconnects() === 1 && made.state() === "live");
  assert.deepEqual([ids, reader.state(), asked], [ALL.slice(0, 3), "live", [null, "7-3"]]);
});

test("a service that is away is asked again; one that says no is not", async () => {
  const away = await service(broken(numbered(1, 2)), status(503), status(429), whole(numbered(3, 10)));
  assert.deepEqual((await followed()).ids, ALL);
  assert.equal(away.length, 4);
  const gone = await service(status(404));
  const { reader } = await followed();
  assert.deepEqual([reader.state(), reader.refusal().status, gone.length], ["refused", 404, 1]);
});

test("who has all of it is told so, and does not come back", async () => {
  const asked = await service(status(204));
  assert.equal((await followed()).reader.state(), "ended");
  assert.equal(asked.length, 1);
});

test("cut by hand it stays cut, and resumes from where it was", async () => {
  const asked = await service(
    (response) => response.writeHead(200).write(RETRY + numbered(1, 4)),
    whole(numbered(5, 10)),
  );
  const { ids, reader } = await followed(
    (made) => made.state() === "cut",
    (made, so) => so.length === 4 && made.cut(),
  );
  assert.equal(reader.until(), null);
  assert.equal(ids.length, 4);
  const ended = new Promise((resolve) => {
    const timer = setInterval(() => reader.state() === "ended" && (clearInterval(timer), resolve()), 5);
  });
  reader.resume();
  await ended;
  assert.deepEqual([ids, asked], [ALL, [null, "7-4"]]);
});
