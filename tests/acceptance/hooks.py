"""`useChat` of the AI SDK in a Node of its own: what a person would see of a chat."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from tests.acceptance.readers import DEADLINE_SECONDS
from tests.node import NO_NODE, PACKAGES, node

NO_AI_SDK = f"{NO_NODE}: not shown with the AI SDK's useChat"

_LINE_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Shown:
    """What a hook shows, and what its app was told."""

    status: str
    messages: list[dict[str, Any]]
    error: str | None
    data: list[dict[str, Any]]
    """Parts called `data-…`, in their order."""
    answers: list[int]
    """Statuses of the answers to what it asked."""
    finished: list[dict[str, Any]]
    """How each of its streams ended."""

    @property
    def texts(self) -> list[tuple[str, str]]:
        """Who said what."""
        return [(message["role"], said(message)) for message in self.messages]

    @property
    def answer(self) -> dict[str, Any]:
        """The last message, which is the assistant's."""
        assert self.messages[-1]["role"] == "assistant"
        return self.messages[-1]


def said(message: dict[str, Any]) -> str:
    """A message's text."""
    return "".join(part["text"] for part in message["parts"] if part["type"] == "text")


class Hook:
    """One instance, in a page of its own."""

    def __init__(self, hooks: "Hooks", name: str) -> None:
        self._hooks = hooks
        self._name = name

    async def send(self, *lines: str, instead_of: str | None = None) -> None:
        """Say this, or this instead of an earlier message. It is not waited for."""
        await self.call("sendMessage", text="\n".join(lines), **({"messageId": instead_of} if instead_of else {}))

    async def call(self, what: str, **given: Any) -> None:
        """Call any of its functions. It is not waited for."""
        await self._hooks.do({"do": "call", "as": self._name, "what": what, "with": given or None})

    async def see(self, **until: Any) -> Shown:
        """What it shows as soon as the last message is an answer with `says` in it, and so many `answers` came."""
        return Shown(**await self._hooks.do({"do": "see", "as": self._name, "until": until}))

    async def settled(self, **until: Any) -> Shown:
        """What it shows when all that was called has ended."""
        return await self.see(settled=True, **until)


class Hooks:
    """A Node in which hooks can be mounted."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._numbers = itertools.count(1)
        self._asked: dict[int, asyncio.Future[Any]] = {}

    @asynccontextmanager
    async def open(self, url: str, chat_id: str, messages: Sequence[dict[str, Any]] = ()) -> AsyncIterator[Hook]:
        """Mount one; leaving the block unmounts it, as leaving a page does."""
        name = str(next(self._numbers))
        await self.do({"do": "open", "as": name, "url": url, "id": chat_id, "messages": messages, "resume": True})
        yield Hook(self, name)
        await self.do({"do": "close", "as": name})

    async def do(self, what: dict[str, Any]) -> Any:
        """Have this done; answers what came of it."""
        number = next(self._numbers)
        self._asked[number] = answer = asyncio.get_running_loop().create_future()
        assert self._process.stdin is not None
        self._process.stdin.write(orjson.dumps({"n": number} | what) + b"\n")
        async with asyncio.timeout(DEADLINE_SECONDS):
            return await answer

    async def read(self) -> None:
        """Hand out the answers, as long as there are any."""
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            answer = orjson.loads(line)
            asked = self._asked.pop(answer["n"])
            if asked.done():  # nobody waits any more
                continue
            if "error" in answer:
                asked.set_exception(AssertionError(answer["error"]))
            else:
                asked.set_result(answer["seen"])
        for asked in self._asked.values():
            asked.cancel("Node has ended")


@asynccontextmanager
async def hooks_in_node(log: Path) -> AsyncIterator[Hooks | None]:
    """A Node with the AI SDK; None where it is not installed. What it complains of stands in `log`."""
    binary = node()
    if binary is None:
        yield None
        return
    with log.open("wb") as stderr:
        process = await asyncio.create_subprocess_exec(
            *(binary, PACKAGES.parent / "hooks.mjs"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=stderr,
            limit=_LINE_BYTES,
        )
    hooks = Hooks(process)
    assert process.stdin is not None
    async with asyncio.TaskGroup() as group:
        group.create_task(hooks.read(), name="hooks")
        try:
            yield hooks
        finally:
            process.stdin.close()
            await process.wait()
