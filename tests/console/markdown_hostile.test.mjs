// Nothing that is written makes reading it fail, or slow, or a link to where none may lead.
import assert from "node:assert/strict";
import { test } from "node:test";
import { linkTarget } from "../../service/http/console/static/model/links.js";
import { markdown } from "../../service/http/console/static/model/markdown.js";
import { unescaped } from "../../service/http/console/static/model/markdown_link_tail.js";
import { blockText } from "../../service/http/console/static/model/markdown_tree.js";
import { ANSWER, HOSTILE, randomText, seeded } from "./markdown_samples.mjs";

const whole = (text) => markdown().update(text);
const textOf = (text) =>
  whole(text)
    .map(({ content }) => blockText(content))
    .join("\n");

function* nodesIn(value) {
  if (typeof value !== "object" || value === null) return;
  yield value;
  for (const inside of Object.values(value)) yield* nodesIn(inside);
}

for (const text of HOSTILE) {
  test(`${JSON.stringify(text)} leads nowhere, and nothing of it is lost`, () => {
    for (const node of nodesIn(whole(text))) {
      assert.ok(Object.isFrozen(node));
      if (node.type === "link") assert.ok(/^https?:/.test(node.target) && linkTarget(node.target) === node.target);
    }
    const letters = (string) => string.replaceAll(/[^a-z<>]/giu, "");
    const markup = /!?\[([^\]]*)\]\(https:[^)]*\)|<(https:[^>]*)>|^> /gmu;
    assert.equal(letters(textOf(text)), letters(unescaped(text.replaceAll(markup, "$1$2"))));
  });
}

test("letters and digits of any text are there, in their order", () => {
  const random = seeded(99);
  for (let round = 0; round < 800; round++) {
    // Of a link the address is not shown, of an ordered list not the number, of a task not the x.
    const text = randomText(random, 40).replaceAll(/https:|\d|[x&]/g, "");
    const letters = (string) => string.replaceAll(/[^\p{L}\p{Cs}\0]/gu, "");
    assert.equal(letters(textOf(text)), letters(text), JSON.stringify(text));
  }
});

test("marks that are nested too deep are text", () => {
  const depth = (value) => Math.max(0, ...[...(value.children ?? value.blocks ?? [])].map((node) => 1 + depth(node)));
  const [marked] = whole(
    `${"*a _b ".repeat(100)}x${" b_ a*".repeat(100).replaceAll(" b_", "b_").replaceAll(" a*", "a*")}`,
  );
  assert.ok(depth(marked.content[0]) <= 33);
  const [quoted] = whole(`${"> ".repeat(100)}x`);
  assert.equal(depth(quoted.content[0]), 17);
  assert.equal(blockText(quoted.content), `${"> ".repeat(84)}x`);
});

const LONG = {
  stars: (n) => "*".repeat(n),
  "stars apart": (n) => "*a ".repeat(n),
  "stars in a mix": (n) => "*a **b _c __d ".repeat(n / 4),
  "stars that close": (n) => "**a *".repeat(n / 2) + "a* b**".repeat(n / 2),
  "marks that close none": (n) => "*a ".repeat(n / 6) + "b_ ".repeat(n / 6),
  "opening brackets": (n) => "[".repeat(n),
  brackets: (n) => "[".repeat(n) + "]".repeat(n),
  "brackets with tails": (n) => "[a](b".repeat(n / 5),
  "brackets with titles": (n) => "[a](b (".repeat(n / 7) + '[a](b "'.repeat(n / 7),
  "brackets around links": (n) => "[".repeat(n) + "[a](https://b.c)".repeat(n / 10),
  images: (n) => "![".repeat(n) + "](https://b.c)".repeat(n / 10),
  quotes: (n) => ">".repeat(n),
  "lines of quotes": (n) => ">>>>>>>>> a\n".repeat(n / 10),
  backticks: (n) => "`".repeat(n),
  "backticks apart": (n) => "` `` ``` ".repeat(n / 4),
  "runs of backticks": (n) => Array.from({ length: Math.sqrt(n) }, (_, length) => "`".repeat(length)).join(" "),
  "angle brackets": (n) => "<https:".repeat(n / 4),
  "bare addresses": (n) => "https://%%".repeat(n / 4),
  "parentheses behind an address": (n) => `https://a.b/${")".repeat(n)}`,
  entities: (n) => "&#".repeat(n),
  backslashes: (n) => "\\".repeat(n),
  "blanks at ends": (n) => `a${" ".repeat(n)}b`.repeat(2),
  "blanks in lines": (n) => ("- a" + " ".repeat(100) + "b\n").repeat(n / 100),
  "nested items": (n) => Array.from({ length: Math.sqrt(n) }, (_, depth) => `${"  ".repeat(depth)}- a`).join("\n"),
  "items of items": (n) => "- ".repeat(n) + "a",
  pipes: (n) => "|".repeat(n),
  "rows of pipes": (n) => "||||\n|-|-|-|\n".repeat(n / 10),
  "a paragraph of rows": (n) => "| a\n".repeat(n / 4),
  fences: (n) => "```\n".repeat(n / 4),
  headings: (n) => "#\n".repeat(n / 2),
  "blank lines": (n) => "\n".repeat(n),
  "one line": (n) => "word ".repeat(n / 5),
};

/** Of the processor, not of the clock: others use the machine, too. */
function secondsOf(work) {
  const before = process.cpuUsage();
  work();
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1e6;
}

const seconds = (text) => secondsOf(() => whole(text));

for (const [name, made] of Object.entries(LONG)) {
  test(`time for ${name} grows with their length only`, () => {
    // Within one block: between blocks it could not grow faster. The best of several, again while it is no good, since
    // whatever else the machine does can only make it longer; and what is about as short as a frame is not compared.
    const least = { once: Infinity, fourfold: Infinity };
    const isLinear = () => least.fourfold < 0.01 || least.fourfold / least.once < 9;
    for (let tries = 0; tries < 3 || (tries < 20 && !isLinear()); tries++) {
      least.once = Math.min(least.once, seconds(made(4_000)));
      least.fourfold = Math.min(least.fourfold, seconds(made(16_000)));
    }
    assert.ok(isLinear(), `${least.once} s, four times as long: ${least.fourfold} s`);
    assert.ok(seconds(made(50_000)) < 1);
  });
}

test("a line of a megabyte is read in time, and costs as little as any when it grows", () => {
  const text = "a **line** `of` [it](https://example.org) ".repeat(25_000);
  assert.ok(seconds(text) < 1);
  const parser = markdown();
  parser.update(text);
  const growing = secondsOf(() => {
    for (let end = 1; end <= 100; end++) parser.update(text + "word ".repeat(end));
  });
  assert.ok(growing / 100 < 0.02, `${growing / 100} s`);
});

test("any cut of what agents and others say is read", () => {
  for (const text of [ANSWER, ...HOSTILE]) {
    for (let at = 0; at < text.length; at++) assert.doesNotThrow(() => whole(text.slice(at)));
  }
});
