"""The readers, as a process of their own: raw protocols that only count frames. Told what to do on its input.

`connect <port> <count> <path>` opens connections and answers when each has its headers; a path that begins with `@` is
a file with the path of each. `expect <frames>` answers at once; when all readers together have so many frames each,
counted from then on, a second answer says when that was. `time` looks for stamps from then on (see `stamp`), and
`times` answers how old the events were, in milliseconds: the median, the 99th percentile, and how many were looked at.
`replay <port> <count> <path> <frames>` does both, from before the first connection. `status` tells the frames of each
reader, `close` closes all. Answers are lines of JSON; times are of CLOCK_MONOTONIC, which all processes of a machine
share.
"""

import asyncio
import json
import re
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

from tests.bench.processes import raise_descriptor_limit

MARK: Final = b"{"
"""Every event that is measured has one, and nothing else on the wire does. One byte is counted four times as fast as
two, at several GB/s: with less, it would be this program that is measured."""

STAMP: Final = re.compile(rb"@(\d+)@")
"""Stands in an event that is timed: when it was sent, in nanoseconds of CLOCK_MONOTONIC."""

CONNECTING_AT_ONCE: Final = 100
_buffer: Final = bytearray(256 * 1024)


class Reader(asyncio.BufferedProtocol):
    """One reader. All share one buffer: what arrives is counted before the next one arrives."""

    def __init__(self, crowd: "Crowd", path: str) -> None:
        self._crowd = crowd
        self._path = path
        self.began: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.frames = 0
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        request = f"GET {self._path} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n"
        transport.write(request.encode())

    def get_buffer(self, sizehint: int) -> bytearray:
        return _buffer

    def buffer_updated(self, nbytes: int) -> None:
        if not self.began.done():
            if not _buffer.startswith(b"HTTP/1.1 200"):
                self.began.set_exception(RuntimeError(bytes(_buffer[: min(nbytes, 500)]).decode()))
                return
            self.began.set_result(None)
        frames = _buffer.count(MARK, 0, nbytes)
        self.frames += frames
        if self._crowd.ages is not None:
            now = time.monotonic_ns()
            self._crowd.ages += [now - int(sent) for sent in STAMP.findall(_buffer, 0, nbytes)]
        self._crowd.count(frames)


class Crowd:
    """All readers of this process."""

    def __init__(self) -> None:
        self.readers: list[Reader] = []
        self.ages: list[int] | None = None
        """Of timed events, in nanoseconds; one that came in two pieces is not among them."""
        self._frames = 0
        self._reads = 0
        self._goal: int | None = None
        self._expected = 0
        self._begun = 0.0

    async def connect(self, port: int, count: int, path: str) -> None:
        """Open connections, some at once, and wait for their headers."""
        loop = asyncio.get_running_loop()
        paths = Path(path[1:]).read_text().split() if path.startswith("@") else [path] * count
        for start in range(0, count, CONNECTING_AT_ONCE):
            opened = await asyncio.gather(
                *(
                    loop.create_connection(partial(Reader, self, each), "127.0.0.1", port)
                    for each in paths[start : min(start + CONNECTING_AT_ONCE, count)]
                )
            )
            self.readers += [reader for _, reader in opened]
            await asyncio.gather(*(reader.began for _, reader in opened))

    def expect(self, frames: int, readers: int) -> None:
        """From here on count towards so many frames for each of so many readers."""
        for reader in self.readers:
            reader.frames = 0
        self._frames = self._reads = 0
        self._expected, self._goal, self._begun = frames, frames * readers, time.monotonic()

    def count(self, frames: int) -> None:
        """Something arrived."""
        self._frames += frames
        self._reads += 1
        if self._goal is not None and self._frames >= self._goal:
            self._goal = None
            odd = sum(reader.frames != self._expected for reader in self.readers)
            answer(begun=self._begun, done=time.monotonic(), odd=odd, frames_a_read=self._frames / self._reads)

    def told_ages(self) -> dict[str, float]:
        """What is answered of the ages."""
        ages, self.ages = sorted(self.ages or [0]), None
        return {"p50": ages[len(ages) // 2] / 1e6, "p99": ages[len(ages) * 99 // 100] / 1e6, "count": len(ages)}

    def close(self) -> None:
        """Hang up."""
        for reader in self.readers:
            if reader.transport is not None:
                reader.transport.abort()
        self.readers.clear()


def answer(**fields: Any) -> None:
    """Say something to who gave the command."""
    print(json.dumps(fields), flush=True)


async def main() -> None:
    """Do what comes in until the input ends."""
    raise_descriptor_limit()
    crowd = Crowd()
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := (await reader.readline()).decode():
        match line.split():
            case ["connect", port, count, path]:
                await crowd.connect(int(port), int(count), path)
                answer(connected=count)
            case ["expect", frames, count]:
                crowd.expect(int(frames), int(count))
                answer(counting=True)
            case ["replay", port, count, path, frames]:
                crowd.expect(int(frames), int(count))
                await crowd.connect(int(port), int(count), path)
            case ["time"]:
                crowd.ages = []
                answer(timing=True)
            case ["times"]:
                answer(**crowd.told_ages())
            case ["status"]:
                answer(frames=[reader.frames for reader in crowd.readers])
            case ["close"]:
                crowd.close()
                answer(closed=True)
            case other:
                raise ValueError(other)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(main())
