// Texts for the tests of Markdown: what agents say, and what somebody says to do harm.

export const ANSWER = [
  "# A heading with `code` #",
  "",
  "A paragraph, **strong *and* emphasised**,",
  "goes on  ",
  "behind a break\\",
  "and another; https://example.org/a_b_c (see https://example.org/).",
  "1. one",
  "   - inside of it",
  "     goes on",
  "   - [x] done",
  "",
  "   A second paragraph.",
  "2. two",
  "```python",
  "def f():",
  "",
  "    return 1  # no *markup*",
  "```",
  "> A quote",
  "> > in a quote",
  "> - with a list",
  "",
  "Before the table",
  "| name | `a\\|b` |",
  "|:-----|-----:|",
  "| x | y",
  "| ~~z~~ | [a link](https://example.org \"its title\") |",
  "Behind it.",
  "***",
  "- loose",
  "",
  "- items",
  "-",
  "* others",
  "",
  "\t* deeper",
  "",
  "~~~",
  "``` inside",
  "~~~",
  "Not <b>bold</b>, &lt;i&gt; &#x1f600; ![alt](https://example.org/a.png) snake_case_name 2 * 3 * 4",
  "",
  "````",
  "unclosed",
].join("\n");

export const HOSTILE = [
  "<script>alert(1)</script>",
  "<img src=x onerror=alert(1)>",
  "<svg/onload=alert(1)>",
  "<style>*{display:none}</style><base href=//example.org>",
  "<a href=\"javascript:alert(1)\">a</a><iframe srcdoc='<script>alert(1)</script>'></iframe>",
  "<!-- --><![CDATA[x]]><?php x ?>",
  "[a](javascript:alert(1)) [b](JaVaScRiPt:alert(1)) [c](<java\tscript:alert(1)>)",
  "[a](java\nscript:alert(1)) [b](<java\nscript:alert(1)>) [c](&#106;avascript:alert(1))",
  "[a](javascript&#58;alert(1)) [b](&#x6A;&#x61;vascript:alert(1)) [c](\\javascript:alert(1))",
  "[a](&#1;javascript:alert(1)) [b](java&#10;script:alert(1)) [c](java&#9;script:alert(1))",
  "[a](vbscript:x) [b](data:text/html,<script>alert(1)</script>) [c](file:///etc/passwd) [d](//example.org)",
  "![a](javascript:alert(1)) ![b](data:image/svg+xml,<svg/onload=alert(1)>) ![c](relative.png)",
  "<javascript:alert(1)> <JAVASCRIPT:alert(1)> <data:text/html,x> javascript:alert(1)",
  "[a](https://example.org/\"onmouseover=\"alert(1)) [b](https://example.org 'x\" onclick=\"alert(1)')",
  "https://example.org/\"onmouseover=alert(1) <https://example.org/'onclick='alert(1)>",
  "```\"><script>alert(1)</script>\n</code></pre><script>alert(1)</script>\n```",
  "| <script>alert(1)</script> | b |\n|---|---|\n| <img src=x onerror=alert(1)> | [x](javascript:alert(1)) |",
  "# <script>alert(1)</script>\n> <img src=x onerror=alert(1)>\n\n- <svg/onload=alert(1)>",
  "\u202Eright to left\u202C \u2066isolated\u2069 zero\u200Bwidth\u200D\uFEFF",
  "lone \uD800 and \uDC00 surrogates, `\uD800`, **\uDC00**, [\uD800](https://example.org/\uDC00)",
  "NUL \u0000 in text, `\u0000`, &#0; and &#xD800; and &#x110000;",
  "\u2028\u2029\u0085\u000B\u000C and \u0001\u001B[31m",
  "__proto__ constructor [toString] &constructor; &__proto__; ```__proto__",
];

/** Characters that mean something, so that random texts are full of it. */
const PIECES = [
  "*", "**", "_", "~~", "`", "``", "[", "]", "](", "(", ")", "![", "!", "<", ">", "&amp;", "&#", "\\", "|", "|-|-|", ":",
  "#", "# ", "\n", "\n", "\n\n", "\r\n", "- ", "* ", "1. ", "2) ", "> ", ">", "```", "~~~", "---", "   ", "  ", "\t", " ",
  "https://example.org/", "a", "b", "word ", "[x] ", "\u00E9", "\u{1F600}", "\uD800", "\u0000", "\"", "'",
];

/** Numbers from 0 to 1 that are the same each time. */
export function seeded(seed) {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

export function randomText(random, pieces) {
  return Array.from({ length: pieces }, () => PIECES[Math.floor(random() * PIECES.length)]).join("");
}
