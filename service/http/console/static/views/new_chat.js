// A chat before anything is said: its session is made with its first message.

import { composer } from "../parts/composer.js";
import { button, h } from "../parts/dom.js";
import { Refused } from "../service/api.js";
import { createSession, deleteSession, postMessage } from "../service/sessions.js";
import { unsent } from "../service/unsent.js";

const NAME = "new"; // there is no session yet to call it by
const TO_TRY = [
  ["Count to sixty", "/count 60 rate=8"],
  [
    "Think, use a tool, answer",
    '/reason First I think about it.\n/tool think {"thought": "And again."}\n/say **Done.** See the `Log`.',
  ],
  ["Ask me something", '/tool ask {"question": "Tea or coffee?"}'],
  ["Set a timer", '/tool timer {"seconds": 10, "note": "The oven."}\n/say I will come back in ten seconds.'],
  ["Fail twice, then answer", "/fail rate_limit times=2\n/say It went well at the third try."],
];

export function newChat() {
  const kept = unsent(NAME);
  let isClosed = false;
  const field = composer(
    {
      async send(text) {
        const key = kept.keyOf(text);
        const sessionId = await createSession(text, key);
        try {
          await postMessage(sessionId, text, key);
        } catch (error) {
          if (error instanceof Refused) await undo(sessionId);
          throw error;
        }
        kept.forget();
        if (!isClosed) location.replace(`#/chat/${sessionId}`);
      },
      async stop() {},
      emptied: kept.forget,
    },
    "playhead.draft",
  );

  /** Of what is refused nothing is left. @param {string} sessionId */
  async function undo(sessionId) {
    kept.forget();
    await deleteSession(sessionId).catch(() => {});
  }

  const tries = TO_TRY.map(([name, text]) => button(name, () => (field.write(text), field.focus())));
  const hint = h("p", { class: "quiet-text" }, "The demo model does what lines with a slash say. To try:");
  const welcome = h(
    "div",
    { class: "welcome stack" },
    h("h1", null, "Say something."),
    hint,
    h("div", { class: "row" }, tries),
  );
  return {
    element: h("div", { class: "chat-column" }, h("div", { class: "chat-scroll" }, welcome), field.element),
    begin: () => queueMicrotask(field.focus), // it has to be on the page
    close() {
      isClosed = true;
    },
  };
}
