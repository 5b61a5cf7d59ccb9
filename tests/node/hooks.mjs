// Instances of useChat, as apps have them. A line of JSON in is one thing to do, a line out what came of it:
//   {"n", "do": "open", "as", "url", "id", "messages", "resume"}   mount a hook
//   {"n", "do": "call", "as", "what", "with"}                      sendMessage, regenerate, …; it is not waited for
//   {"n", "do": "see", "as", "until"}                              what the hook shows, as soon as it shows that
//   {"n", "do": "close", "as"}                                     unmount it
import { createInterface } from "node:readline";
import { createElement, useState } from "react";
import { create } from "react-test-renderer";
import { useChat } from "@ai-sdk/react";
import { DefaultChatTransport, lastAssistantMessageIsCompleteWithApprovalResponses } from "ai";

const hooks = new Map();

class Hook {
  constructor({ url, id, messages, resume }) {
    this.data = []; // transient parts too, which no message has
    this.answers = []; // of the service, to posts and resumptions
    this.finished = [];
    this.calls = []; // which are under way
    this.waiting = new Set();
    const app = this;
    const transport = new DefaultChatTransport({
      api: `${url}/api/chat`,
      fetch: async (...asked) => {
        const answer = await fetch(...asked);
        app.answers.push(answer.status);
        app.shown();
        return answer;
      },
    });
    function Chat() {
      app.chat = useChat({
        id,
        messages,
        resume,
        transport,
        sendAutomaticallyWhen: lastAssistantMessageIsCompleteWithApprovalResponses,
        onData: ({ type, data }) => app.data.push({ type, data }),
        onFinish: ({ isAbort, isDisconnect, isError, finishReason }) =>
          app.finished.push({ isAbort, isDisconnect, isError, finishReason }),
      });
      [app.rendered, app.render] = useState(0);
      queueMicrotask(() => app.shown());
      return null;
    }
    this.root = create(createElement(Chat));
  }

  // What is rendered now has all that the hook was told before: updates are rendered in their order.
  async fresh() {
    const wanted = this.rendered + 1;
    this.render(wanted);
    await this.until(() => this.rendered >= wanted);
  }

  until(holds) {
    if (holds()) return Promise.resolve();
    return new Promise((done) => this.waiting.add([holds, done]));
  }

  shown() {
    for (const each of this.waiting) {
      const [holds, done] = each;
      if (holds()) {
        this.waiting.delete(each);
        done();
      }
    }
  }

  async see({ settled, says, answers = 0 }) {
    if (settled) await Promise.all(this.calls.splice(0));
    await this.fresh();
    await this.until(
      () =>
        (!settled || ["ready", "error"].includes(this.chat.status)) &&
        (says === undefined || this.said().includes(says)) &&
        this.answers.length >= answers,
    );
    await this.fresh();
    const { status, messages, error } = this.chat;
    const { data: parts, answers: statuses, finished } = this;
    return { status, messages, error: error?.message ?? null, data: parts, answers: statuses, finished };
  }

  said() {
    const last = this.chat.messages.at(-1);
    return last?.role === "assistant" ? last.parts.map((part) => part.text ?? "").join("") : "";
  }
}

async function done(asked) {
  const hook = hooks.get(asked.as);
  switch (asked.do) {
    case "open": {
      const opened = new Hook(asked);
      hooks.set(asked.as, opened);
      await opened.until(() => opened.render);
      return null;
    }
    case "call":
      hook.calls.push(hook.chat[asked.what](asked.with ?? undefined));
      return null;
    case "see":
      return await hook.see(asked.until);
    case "close":
      hook.root.unmount();
      hooks.delete(asked.as);
      return null;
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  const asked = JSON.parse(line);
  done(asked).then(
    (seen) => console.log(JSON.stringify({ n: asked.n, seen })),
    (error) => console.log(JSON.stringify({ n: asked.n, error: String(error.stack) })),
  );
}
process.exit(0);
