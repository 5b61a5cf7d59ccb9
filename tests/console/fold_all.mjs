// Folds logs as the page does: a log a line in, as a list of chunks; what stands after each of its events, a line out.

import { createInterface } from "node:readline";

import { apply, emptyFold } from "../../service/http/console/static/model/fold.js";

for await (const line of createInterface({ input: process.stdin })) {
  const fold = emptyFold();
  const states = JSON.parse(line).map((chunk) => {
    apply(fold, chunk);
    const { parts, status, attempts, steps, usage } = fold;
    return structuredClone({ parts, status, attempts, steps, usage });
  });
  console.log(JSON.stringify(states));
}
