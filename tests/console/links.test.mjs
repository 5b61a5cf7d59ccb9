import assert from "node:assert/strict";
import { test } from "node:test";
import { linkTarget } from "../../service/http/console/static/model/links.js";

const LEADS = {
  "https://example.org/a?b=c#d": "https://example.org/a?b=c#d",
  "http://example.org": "http://example.org/",
  "HTTPS://example.org": "https://example.org/",
  "mailto:a@example.org": "mailto:a@example.org",
  " \u0001 https://example.org/ ": "https://example.org/",
  "ht\ntps://example.org/\u0000": "https://example.org/",
  "https://example.org/\u202e": "https://example.org/%E2%80%AE",
  "https://example.org/\ud800": "https://example.org/%EF%BF%BD",
};

const LEADS_NOWHERE = [
  "",
  "relative",
  "/absolute",
  "//example.org",
  "#fragment",
  "https://",
  "javascript:alert(1)",
  "JaVaScRiPt:alert(1)",
  "java\nscript:alert(1)",
  "java\tscript:alert(1)",
  "java\rscript:alert(1)",
  "\u0000javascript:alert(1)",
  " \u001f javascript:alert(1)",
  "javascript\n:alert(1)",
  "javascript://example.org/%0aalert(1)",
  "java\u200bscript:alert(1)",
  "javascript&colon;alert(1)",
  "vbscript:msgbox(1)",
  "data:text/html,<script>alert(1)</script>",
  "blob:https://example.org/1",
  "file:///etc/passwd",
  "view-source:https://example.org",
  "ftp://example.org",
  "ws://example.org",
  "tel:112",
];

for (const [text, target] of Object.entries(LEADS)) {
  test(`${JSON.stringify(text)} leads to ${target}`, () => assert.equal(linkTarget(text), target));
}

for (const text of LEADS_NOWHERE) {
  test(`${JSON.stringify(text)} leads nowhere`, () => assert.equal(linkTarget(text), null));
}
