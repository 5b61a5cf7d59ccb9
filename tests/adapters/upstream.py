"""A model's endpoint for tests: a real HTTP server that speaks OpenAI's chat completions, by script.

    async with Upstream() as upstream:
        upstream.play(answer("Hel", "lo"), refusal(429))     # the next two calls
        ... a client that is told upstream.url ...
        upstream.requests[0].body, .headers, await upstream.requests[0].gone.wait()

`url` is `http://127.0.0.1:<port>/v1`; calls go to `POST <url>/chat/completions`. With `Upstream(key="k")` any other
bearer token is answered with 401. `requests` holds every call in its order, `called` is set at the first; `gone`
of one is set when its client went away before the answer was over. Leaving the `async with` ends all calls at once.

A script is a status and **steps**, each a dataclass below: `Delta`, `Reasoning`, `Finish`, `Tokens`, `Done`, `Fault`
(an error object amid the stream), `Raw` (any bytes), `Silence` (until the client goes), `Pause`, `Cut`. `answer()` and
`refusal()` make the usual ones. When no script is left, the text of the **last user message** decides, so that one
server serves many cases, of a service in another process too:

| text | answer |
|---|---|
| `say <words>` (and any other text) | the words, one a delta |
| `reason <words>` | the words as reasoning (`reasoning_content`), then `done` as text |
| `ollama <words>` | the same in the other spelling (`reasoning`) |
| `slow <n> <per second>` | n numbered deltas at that rate |
| `stall` | silence before the response's head |
| `stall <k>` | k deltas, then silence |
| `comment <k>` | k deltas, then an SSE comment ten times a second for ever |
| `cut <k>` | k deltas, then the connection is reset (RST) |
| `close <k>` | k deltas, then the connection is closed amid the body (FIN) |
| `end <k>` | k deltas, then the body ends in order, without finish_reason and `[DONE]` |
| `status <code>` | that status with a JSON error body |
| `html <code>` | that status with an HTML body; `html 200` too |
| `error <code>` | two deltas, then an error object with that code |
| `garbage` | a delta, then an event that is not JSON |
| `long <characters>` | one delta of that length |
| `nodone`, `nousage`, `length`, `filter` | without `[DONE]`; without usage; those finish reasons |
| `<k>x <command> then <command>` | the first for the first k calls with just this text, the second from then on |
"""

import asyncio
import json
import socket
import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self

from aiohttp import web

SECRET: Final = "sk-upstream-echoed-this"
"""Stands in every error body; it must never be seen anywhere else."""


@dataclass(frozen=True)
class Delta:
    content: object


@dataclass(frozen=True)
class Reasoning:
    text: str
    field: str = "reasoning_content"


@dataclass(frozen=True)
class Finish:
    reason: object = "stop"


@dataclass(frozen=True)
class Tokens:
    usage: object


@dataclass(frozen=True)
class Done:
    pass


@dataclass(frozen=True)
class Fault:
    error: object


@dataclass(frozen=True)
class Raw:
    data: bytes


@dataclass(frozen=True)
class Silence:
    """Nothing more, until the client goes. Before the first written step: not even a head."""


@dataclass(frozen=True)
class Pause:
    seconds: float


@dataclass(frozen=True)
class Cut:
    """The connection ends: at once by RST, or in order (FIN) but amid the body. As a first step: before the head."""

    reset: bool = True


Step = Delta | Reasoning | Finish | Tokens | Done | Fault | Raw | Silence | Pause | Cut


@dataclass(frozen=True)
class Script:
    steps: tuple[Step, ...]
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=lambda: {"Content-Type": "text/event-stream; charset=utf-8"})
    repeat: bool = False
    """The steps again and again, until the client goes."""


@dataclass
class Received:
    """One call: what came, and whether its client went away before the answer was over."""

    headers: Mapping[str, str]
    body: Any
    peer: tuple[str, int]
    gone: asyncio.Event = field(default_factory=asyncio.Event)


def answer(*deltas: object, finish: object = "stop", usage: object = (7, 5), done: bool = True) -> Script:
    """A whole answer: deltas, finish, usage (a pair, or as it goes on the wire; None: not sent), `[DONE]`."""
    if isinstance(usage, tuple):
        usage = {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)}
    steps: list[Step] = [Delta(delta) for delta in deltas]
    steps += [] if finish is None else [Finish(finish)]
    steps += [] if usage is None else [Tokens(usage)]
    steps += [Done()] if done else []
    return Script(tuple(steps))


def refusal(status: int, *, html: bool = False, retry_after: str | None = None) -> Script:
    """An answer that is no stream, as a provider (JSON) or a proxy before it (HTML) gives it."""
    error = {"message": f"Refused: {SECRET}", "type": "invalid_request_error", "param": None, "code": None}
    page = f"<!doctype html>\n<html><head><title>{status}</title></head><body>{SECRET}</body></html>"
    body = page if html else json.dumps({"error": error})
    headers = {"Content-Type": "text/html" if html else "application/json"}
    headers |= {} if retry_after is None else {"Retry-After": retry_after}
    return Script((Raw(body.encode()),), status, headers)


class Upstream:
    """The server, on a port of its own; see the module."""

    def __init__(self, *, key: str | None = None) -> None:
        self.requests: list[Received] = []
        self.called = asyncio.Event()
        self.url = ""
        self._key = key
        self._scripts: list[Script] = []
        self._told: Counter[str] = Counter()
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_post("/v1/chat/completions", self._complete)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1, access_log=None)

    def play(self, *scripts: Script) -> None:
        """Answer the next calls so, one script each."""
        self._scripts += scripts

    def forget(self) -> None:
        """Be as new: no scripts, no calls."""
        self.requests.clear()
        self.called.clear()
        self._scripts.clear()
        self._told.clear()

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}/v1"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._runner.cleanup()

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        assert request.transport is not None
        received = Received(dict(request.headers), body, request.transport.get_extra_info("peername"))
        self.requests.append(received)
        self.called.set()
        try:
            return await _perform(request, body["model"], self._choose(request, body))
        except (asyncio.CancelledError, ConnectionError):
            received.gone.set()
            raise

    def _choose(self, request: web.Request, body: Any) -> Script:
        if self._key is not None and request.headers.get("Authorization") != f"Bearer {self._key}":
            return refusal(401)
        if self._scripts:
            return self._scripts.pop(0)
        content = [message["content"] for message in body["messages"] if message["role"] == "user"][-1]
        text = content if isinstance(content, str) else "\n".join(part.get("text", "") for part in content)
        times, x, commands = text.partition("x ")
        if x and times.isdigit() and " then " in commands:
            self._told[text] += 1
            return script_for(commands.split(" then ", 1)[self._told[text] > int(times)])
        return script_for(text)


def script_for(text: str) -> Script:
    """What the table in the module says for a text."""
    command, _, rest = text.partition(" ")
    first = rest.split(" ")[0]
    deltas = [Delta(f"{index} ") for index in range(int(first))] if first.isdigit() else []
    return _failing(command, rest, deltas) or _whole(command, rest, deltas) or answer(*_words(text))


def _failing(command: str, rest: str, deltas: list[Delta]) -> Script | None:
    match command:
        case "stall":
            return Script((*deltas, Silence()))
        case "comment":
            return Script((*deltas, *(Raw(b": STILL PROCESSING\n\n"), Pause(0.1)) * 10_000))
        case "cut" | "close":
            return Script((*deltas, Pause(0.02), Cut(reset=command == "cut")))
        case "end":
            return Script(tuple(deltas))
        case "status" | "html":
            return refusal(int(rest), html=command == "html")
        case "error":
            return Script((Delta("So "), Delta("far "), Fault({"message": SECRET, "code": int(rest)})))
        case "garbage":
            return Script((Delta("So far "), Raw(b'data: {"choices": oops\n\n')))
        case _:
            return None


def _whole(command: str, rest: str, deltas: list[Delta]) -> Script | None:
    match command:
        case "say":
            return answer(*_words(rest))
        case "reason" | "ollama":
            spelling = "reasoning_content" if command == "reason" else "reasoning"
            return Script((*(Reasoning(word, spelling) for word in _words(rest)), *answer("done").steps))
        case "slow":
            pause = Pause(1 / float(rest.split()[1]))
            return Script((*(step for delta in deltas for step in (pause, delta)), *answer().steps))
        case "long":
            return answer("x" * int(rest))
        case "nodone":
            return answer("all ", "here", done=False)
        case "nousage":
            return answer("all ", "here", usage=None)
        case "length" | "filter":
            return answer("all ", "here", finish="length" if command == "length" else "content_filter")
        case _:
            return None


def _words(text: str) -> list[str]:
    words = text.split(" ")
    return [f"{word} " for word in words[:-1]] + words[-1:]


async def _perform(request: web.Request, model: str, script: Script) -> web.StreamResponse:
    response = web.StreamResponse(status=script.status, headers=dict(script.headers))
    speaks = any(isinstance(step, Delta | Reasoning) for step in script.steps)
    first = True
    while first or script.repeat:
        for step in script.steps:
            if isinstance(step, Silence):
                await asyncio.Event().wait()
            elif isinstance(step, Pause):
                await asyncio.sleep(step.seconds)
            elif isinstance(step, Cut):
                _cut(request, reset=step.reset)
                return response
            else:
                if not response.prepared:
                    await response.prepare(request)
                    if speaks:
                        await response.write(_event(model, [_choice({"role": "assistant", "content": ""})]))
                await response.write(_bytes(model, step))
        first = False
    if not response.prepared:
        await response.prepare(request)
    await response.write_eof()
    return response


def _bytes(model: str, step: Step) -> bytes:
    match step:
        case Delta(content):
            return _event(model, [_choice({"content": content})])
        case Reasoning(text, name):
            return _event(model, [_choice({name: text, "content": None})])
        case Finish(reason):
            return _event(model, [_choice({}, reason)])
        case Tokens(usage):
            return _event(model, [], usage=usage)
        case Fault(error):
            return _event(model, [_choice({"content": ""})], error=error)
        case Raw(data):
            return data
        case _:
            return b"data: [DONE]\n\n"


def _choice(delta: dict[str, object], finish: object = None) -> dict[str, object]:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}


def _event(model: str, choices: list[dict[str, object]], **more: object) -> bytes:
    chunk = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_700_000_000, "model": model}
    return f"data: {json.dumps({**chunk, 'choices': choices, **more})}\n\n".encode()


def _cut(request: web.Request, *, reset: bool) -> None:
    transport = request.transport
    assert transport is not None
    if reset:
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    else:
        transport.close()
