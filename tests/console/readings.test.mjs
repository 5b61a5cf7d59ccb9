import assert from "node:assert/strict";
import { test } from "node:test";
import { inOrder } from "../../service/http/console/static/model/readings.js";

test("of readings that overlap none is shown behind one that was asked for later", async () => {
  const answers = [];
  const shown = [];
  const read = inOrder(
    () => new Promise((resolve, reject) => answers.push({ resolve, reject })),
    (answer) => shown.push(answer),
  );
  const [first, second, third, fourth] = [read(), read(), read(), read()];
  answers[1].resolve("second");
  await second;
  answers[0].resolve("first");
  await first;
  answers[3].reject(new Error("fourth"));
  await assert.rejects(fourth, /fourth/);
  answers[2].resolve("third");
  await third;
  assert.deepEqual(shown, ["second", "third"]);
});
