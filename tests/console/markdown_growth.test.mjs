// A text that grows gives the same tree as one that was there at once, and its blocks are kept.
import assert from "node:assert/strict";
import { test } from "node:test";
import { LIMIT } from "../../service/http/console/static/model/markdown_lines.js";
import { markdown } from "../../service/http/console/static/model/markdown.js";
import { blockText } from "../../service/http/console/static/model/markdown_tree.js";
import { ANSWER, HOSTILE, randomText, seeded } from "./markdown_samples.mjs";

const whole = (text) => markdown().update(text);

function grown(text, random, longest) {
  const parser = markdown();
  let at = 0;
  while (at < text.length) {
    at += 1 + Math.floor(random() * longest);
    parser.update(text.slice(0, at));
  }
  return parser.update(text);
}

const LONG = {
  "one line": "word ".repeat(9_000),
  "one word": "\u{1F600}".repeat(20_000),
  "a paragraph": "a **line** of it\n".repeat(2_600),
  "a fence": "```\n" + "let a = 1;\n\n".repeat(3_500) + "```\nbehind",
  "a line in a fence": "~~~\n" + "`".repeat(45_000) + "\n  let b;\n~~~\nbehind",
  "a list": "intro\n" + "1. item\n   - of it\n\n".repeat(2_200) + "\nbehind",
  "an item": "- " + "word\n  ".repeat(9_000) + "\n- other\n\nbehind",
  "a line of an item": "- " + "word ".repeat(9_000) + "\n- other\n\nbehind",
  "a quote": "> line **of** it\n> - b\n".repeat(2_200) + "\nbehind",
  "a table": "| a | b |\n|---|---|\n" + "| 1 | 2 |\n".repeat(7_500) + "behind",
  "a row": "| a | b |\n|---|---|\n| 1 |" + "x | ".repeat(9_000) + "\n| 3 | 4 |\nbehind",
  "a heading": "# " + "word ".repeat(7_500) + "\nbehind",
  "blank lines": "- a" + "\n".repeat(45_000) + "b",
  blanks: " ".repeat(45_000) + "b\n" + "\t".repeat(45_000),
};

for (const [name, text] of Object.entries(LONG)) {
  test(`${name} is cut, and nothing is lost`, () => {
    const blocks = whole(text);
    assert.ok(blocks.every(({ start, end }) => start < end && end - start <= LIMIT));
    assert.ok(blocks.length === 2 || blocks.some((block) => block.continues));
    const words = (string) => string.replaceAll(/[^A-Za-z\u{1F600}]/gu, "");
    assert.equal(words(blocks.map(({ content }) => blockText(content)).join("")), words(text));
    assert.deepEqual(grown(text, seeded(1), 9_000), blocks);
  });
}

test("what goes on is of the same kind", () => {
  const kinds = (text) =>
    new Set(
      whole(text)
        .slice(0, -1)
        .flatMap(({ content }) => content.map(({ type }) => type)),
    );
  assert.deepEqual(kinds(LONG["a fence"]), new Set(["fence"]));
  assert.deepEqual(kinds(LONG["a table"]), new Set(["table"]));
  assert.deepEqual(kinds(LONG["a quote"]), new Set(["quote"]));
});

test("a random text that grows gives what it gives at once", () => {
  const random = seeded(4711);
  for (let round = 0; round < 500; round++) {
    const text = randomText(random, 1 + Math.floor(random() * 60));
    assert.deepEqual(grown(text, random, 7), whole(text), JSON.stringify(text));
  }
});

test("a long random text that grows gives what it gives at once", () => {
  const random = seeded(42);
  for (let round = 0; round < 2; round++) {
    const text = [1, 2, 3].map(() => randomText(random, 9_000) + "x".repeat(random() * 50_000)).join("\n");
    assert.deepEqual(grown(text, random, 12_000), whole(text));
  }
});

test("a text that shrinks or changes gives what it gives at once", () => {
  const random = seeded(7);
  for (const text of [ANSWER, HOSTILE.join("\n\n"), LONG["a list"], LONG["one line"], LONG["a paragraph"]]) {
    const parser = markdown();
    for (let round = 0; round < 8; round++) {
      const at = Math.floor(random() * text.length);
      const other = text.slice(0, at) + (round % 2 ? "" : randomText(random, 5));
      assert.deepEqual(parser.update(other), whole(other));
    }
  }
});

test("an answer that grows by a character gives what it gives at once, and keeps what is settled", () => {
  const parser = markdown();
  let before = parser.update("");
  let kept = 0;
  for (let end = 1; end <= ANSWER.length; end++) {
    const blocks = parser.update(ANSWER.slice(0, end));
    assert.deepEqual(blocks, whole(ANSWER.slice(0, end)));
    blocks.slice(0, -1).forEach((block, number) => {
      const former = before[number];
      if (former?.end !== block.end || number === before.length - 1) return;
      assert.equal(block, former);
      kept++;
    });
    before = blocks;
  }
  assert.ok(kept > ANSWER.length);
});

test("a header is none any more when the line below it says so", () => {
  const text = "x\n| a | b |\n|-|-|-|";
  const kinds = (end) => whole(text.slice(0, end)).map(({ content }) => content[0].type);
  assert.deepEqual(kinds(text.length - 2), ["paragraph", "table"]);
  assert.deepEqual(kinds(text.length), ["paragraph"]);
  assert.deepEqual(
    grown(text, () => 0, 1),
    whole(text),
  );
});

test("what stands before a cut or a change is the same object", () => {
  const parser = markdown();
  const all = parser.update(ANSWER);
  const half = all[6].start;
  const less = parser.update(ANSWER.slice(0, half));
  assert.equal(less.length, 6);
  less.slice(0, 4).forEach((block, number) => assert.equal(block, all[number]));
  const other = parser.update(`${ANSWER.slice(0, half)}Something else`);
  other.slice(0, 4).forEach((block, number) => assert.equal(block, all[number]));
  assert.equal(parser.update(`${ANSWER.slice(0, half)}Something else`), other);
});

test("blocks say where they stand, one behind the other", () => {
  let end = 0;
  for (const block of whole(ANSWER)) {
    assert.equal(ANSWER.slice(end, block.start).trim(), "");
    end = block.end;
  }
  assert.equal(end, ANSWER.length);
});
