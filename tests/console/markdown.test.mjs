// What Markdown is read into, case by case. Written short: a node is its kind, a colon and what is in it.
import assert from "node:assert/strict";
import { test } from "node:test";
import { markdown } from "../../service/http/console/static/model/markdown.js";

const SHORT = { strong: "strong", emphasis: "em", strike: "del" };

function inlines(nodes) {
  return nodes
    .map((node) => {
      if (node.type === "text") return node.text;
      if (node.type === "code") return `{code:${node.text}}`;
      if (node.type === "break") return node.hard ? "{br}" : "{lf}";
      if (node.type === "link") return `{${node.target}${node.title && `=${node.title}`}:${inlines(node.children)}}`;
      return `{${SHORT[node.type]}:${inlines(node.children)}}`;
    })
    .join("");
}

function block(node) {
  switch (node.type) {
    case "paragraph":
      return inlines(node.children);
    case "heading":
      return `h${node.level}:${inlines(node.children)}`;
    case "fence":
      return `fence(${node.language}):${node.text}`;
    case "quote":
      return { quote: node.blocks.map(block) };
    case "rule":
      return "rule";
    case "list":
      return { [`${node.ordered ? `ol ${node.first}` : "ul"}${node.tight ? "" : " loose"}`]: node.items.map(item) };
    default:
      return { table: node.aligns, rows: [node.header, ...node.rows].map((row) => row.map(inlines)) };
  }
}

function item({ task, blocks }) {
  const box = task === null ? [] : [task ? "[x]" : "[ ]"];
  return [...box, ...blocks.map(block)];
}

const read = (text) =>
  markdown()
    .update(text)
    .flatMap(({ content }) => content.map(block));

const CASES = {
  "": [],
  " \n\t\n": [],
  "a\nb": ["a{lf}b"],
  "a  \nb\\\n  c": ["a{br}b{br}c"],
  "a  ": ["a"],
  "a\n\nb": ["a", "b"],
  "a\r\nb\r\n\r\nc": ["a{lf}b", "c"],
  "    indented\n\n\tis text": ["indented", "is text"],
  "# a": ["h1:a"],
  "###### a ##": ["h6:a"],
  "####### a": ["####### a"],
  "#a": ["#a"],
  "# a#": ["h1:a#"],
  "#": ["h1:"],
  "a\n# *b*\nc": ["a", "h1:{em:b}", "c"],
  "```js\na\n\n b\n```\nc": ["fence(js):a\n\n b", "c"],
  "~~~ two words\n```\n~~~~": ["fence(two words):```"],
  "```\na": ["fence():a"],
  "```": ["fence():"],
  "````\n```\n````": ["fence():```"],
  "```\na\n``` b": ["fence():a\n``` b"],
  "```a``` b": ["{code:a} b"],
  "  ```\n    a\n b\n  ```": ["fence():  a\nb"],
  "---\n***\n_ _ _": ["rule", "rule", "rule"],
  "a\n---": ["a", "rule"],
  "> a\n> b\nc": [{ quote: ["a{lf}b"] }, "c"],
  "> a\n>\n>> b\n> ```\n> c": [{ quote: ["a", { quote: ["b"] }, "fence():c"] }],
  "- a\n- b": [{ ul: [["a"], ["b"]] }],
  "- a\n\n- b": [{ "ul loose": [["a"], ["b"]] }],
  "- a\n* b\n+ c": [{ ul: [["a"]] }, { ul: [["b"]] }, { ul: [["c"]] }],
  "3. a\n4. b\n7) c": [{ "ol 3": [["a"], ["b{lf}7) c"]] }],
  "1. a\n2) b": [{ "ol 1": [["a{lf}2) b"]] }],
  "1. a\n  - b\n    - c\n2. d": [{ "ol 1": [["a", { ul: [["b", { ul: [["c"]] }]] }], ["d"]] }],
  "1. a\n   - b\n\n     c\n2. d": [{ "ol 1 loose": [["a", { "ul loose": [["b", "c"]] }], ["d"]] }],
  "- a\n\n  b\n\nc": [{ "ul loose": [["a", "b"]] }, "c"],
  "- a\nb\n\nc": [{ ul: [["a{lf}b"]] }, "c"],
  "1. a\n```\nb\n```\n2. c": [{ "ol 1": [["a"]] }, "fence():b", { "ol 2": [["c"]] }],
  "- ```\n  a\n\n  - b\n  ```\n- c": [{ "ul loose": [["fence():a\n\n- b"], ["c"]] }],
  "- [ ] a\n- [x] b\n- [X] c\n- [y] d": [{ ul: [["[ ]", "a"], ["[x]", "b"], ["[x]", "c"], ["[y] d"]] }],
  "-\n- a": [{ ul: [[], ["a"]] }],
  "-a\n1.b": ["-a{lf}1.b"],
  "a\n- b": ["a", { ul: [["b"]] }],
  "a\n2020. b": ["a{lf}2020. b"],
  "-\ta\n\n\tb": [{ "ul loose": [["a", "b"]] }],
  "- # a\n- > b": [{ ul: [["h1:a"], [{ quote: ["b"] }]] }],
  "| a | b |\n|---|:-:|\n| c | d |": [
    {
      table: [null, "center"],
      rows: [
        ["a", "b"],
        ["c", "d"],
      ],
    },
  ],
  "a|b\n:-|-:\nc|d\ne": [
    {
      table: ["left", "right"],
      rows: [
        ["a", "b"],
        ["c", "d"],
      ],
    },
    "e",
  ],
  "x\n| a |\n|-|\n\n| b |": ["x", { table: [null], rows: [["a"]] }, "| b |"],
  "| a |\n|-|\n| b | c |\n| |": [{ table: [null], rows: [["a"], ["b", "c"], [""]] }],
  "| `a\\|b` | \\| |\n|-|-|": [{ table: [null, null], rows: [["{code:a|b}", "|"]] }],
  "a | b\n-|-|-": ["a | b{lf}-|-|-"],
  "`a *b*` ``c`d`` ` ` `` ` ``": ["{code:a *b*} {code:c`d} {code: } {code:`}"],
  "`a\nb` `c": ["{code:a b} `c"],
  "*a* **b** ***c*** _d_ __e__": ["{em:a} {strong:b} {em:{strong:c}} {em:d} {strong:e}"],
  "*a **b** c* **a *b***": ["{em:a {strong:b} c} {strong:a {em:b}}"],
  "a*b*c a_b_c _a_b": ["a{em:b}c a_b_c _a_b"],
  "2 * 3 * 4 **a": ["2 * 3 * 4 **a"],
  "**a* *b": ["*{em:a} *b"],
  "*a *b c_ d* _e f_": ["*a {em:b c_ d} {em:e f}"],
  "**a*b**": ["{strong:a*b}"],
  "~~a~~ ~b~ ~~~c~~~": ["{del:a} ~b~ ~~~c~~~"],
  '[a *b*](https://c.d "t") [e](<https://f.g/h i>)': ["{https://c.d/=t:a {em:b}} {https://f.g/h%20i:e}"],
  "[a](https://b.c/(d)) [e](https://f.g 'h') [i](mailto:j@k.l)": [
    "{https://b.c/(d):a} {https://f.g/=h:e} {mailto:j@k.l:i}",
  ],
  "[a](b) [c](/d) [e](#f) [g](javascript:h) [i] [j][k]": ["[a](b) [c](/d) [e](#f) [g](javascript:h) [i] [j][k]"],
  "[*a](https://b.c)*": ["{https://b.c/:*a}*"],
  "[a [b](https://c.d) e](https://f.g)": ["[a {https://c.d/:b} e]({https://f.g/:https://f.g})"],
  "[](https://a.b) [![c](https://d.e)](https://f.g)": ["{https://a.b/:https://a.b/} {https://f.g/:c}"],
  "![a](https://b.c/d.png) ![e](f.png) !": ["{https://b.c/d.png:a} ![e](f.png) !"],
  "<https://a.b> <mailto:c@d.e> <ftp://f> <b>g</b> a < b": [
    "{https://a.b/:https://a.b} {mailto:c@d.e:mailto:c@d.e} <ftp://f> <b>g</b> a < b",
  ],
  "https://a.b/c_d_e. (http://f.g/(h)) xhttps://i.j **https://k.l**": [
    "{https://a.b/c_d_e:https://a.b/c_d_e}. ({http://f.g/(h):http://f.g/(h)}) xhttps://i.j " +
      "{strong:{https://k.l/:https://k.l}}",
  ],
  "\\*a\\* \\[b] \\a \\\\": ["*a* [b] \\a \\"],
  "&amp;&lt;&gt;&quot;&apos; &#65;&#x1F600; &copy; &#0; &": ["&<>\"' A\u{1F600} &copy; \uFFFD &"],
  "*\u{1F600}* \uD800": ["{em:\u{1F600}} \uD800"],
};

for (const [text, tree] of Object.entries(CASES)) {
  test(JSON.stringify(text), () => assert.deepEqual(read(text), tree));
}
