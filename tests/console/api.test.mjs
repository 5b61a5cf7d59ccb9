import assert from "node:assert/strict";
import { afterEach, mock, test } from "node:test";

globalThis.sessionStorage = { getItem: () => null };
globalThis.document = { baseURI: "http://playhead/" };
const { get, now } = await import("../../service/http/console/static/service/api.js");

const NOON = Date.parse("2026-05-05T12:00:00Z");
const FIFTEEN_MINUTES = 900_000;

afterEach(() => mock.timers.reset());

/** Have an answer, which takes so long, while this clock is so far ahead of the service's. */
async function answered(ahead, milliseconds, date = (at) => new Date(at).toUTCString()) {
  mock.timers.setTime(NOON + 999 + ahead);
  globalThis.fetch = async () => {
    mock.timers.setTime(Date.now() + milliseconds);
    return Response.json({}, { headers: { Date: date(NOON + 999) } });
  };
  await get("/");
  return Date.now() - ahead;
}

test("a clock that is right is let alone, one that is wrong is not", async () => {
  mock.timers.enable({ apis: ["Date"] });
  for (const milliseconds of [0, 5000]) assert.equal(await answered(0, milliseconds), now());
  for (const ahead of [FIFTEEN_MINUTES, -FIFTEEN_MINUTES, 0]) {
    assert.ok(Math.abs((await answered(ahead, 10)) - now()) < 1010);
  }
  const before = now() - Date.now();
  await answered(0, 10, () => "");
  assert.equal(now() - Date.now(), before);
});

test("why something was refused is said, in whatever form it comes", async () => {
  const refused = async (body, type) => {
    globalThis.fetch = async () => new Response(body, { status: 409, headers: { "Content-Type": type } });
    return get("/").catch((error) => [error.message, error.errorType]);
  };
  const problem = { detail: "It has ended.", error_type: "conflict", errors: [{ field: "id", message: "is old" }] };
  const told = await refused(JSON.stringify(problem), "application/problem+json");
  assert.deepEqual(told, ["It has ended. id: is old", "conflict"]);
  const busy = await refused("A turn of this session is still running.", "text/plain; charset=utf-8");
  assert.deepEqual(busy, ["A turn of this session is still running.", "unexpected_error"]);
  for (const [body, type] of [
    ["<h1>Bad gateway</h1>", "text/html"],
    ["", "text/plain"],
    ["x".repeat(501), "text/plain"],
  ])
    assert.deepEqual(await refused(body, type), ["The service answers 409.", "unexpected_error"]);
});
