"""The proxy itself: each fault does what it says, and nothing when it is over."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

import pytest

from tests.faults.link import MAX_WAITING_BYTES, Link, link_to
from tests.faults.wire import BlackHole, Delay, Hold, OneWay, Refuse, Reset, Slices, SwallowReply, Way

PATIENCE_SECONDS: Final = 5.0
A_MOMENT_SECONDS: Final = 0.05
"""So long nothing comes where nothing may come."""

GONE: Final = (asyncio.IncompleteReadError, ConnectionError)


@dataclass(slots=True)
class Echo:
    """A server that repeats lines, loudly, and remembers them and in how many pieces they came."""

    lines: list[bytes] = field(default_factory=list)
    pieces: int = 0
    heard: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = b""
        with suppress(ConnectionError):
            while piece := await reader.read(1024 * 1024):
                self.pieces += 1
                *lines, line = (line + piece).split(b"\n")
                self.lines += lines
                if lines:
                    self.heard.set()
                writer.write(b"".join(line.upper() + b"\n" for line in lines))
        writer.transport.abort()


@dataclass(slots=True)
class Talk:
    """A client's connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def say(self, line: bytes) -> None:
        self.writer.write(line + b"\n")

    async def hear(self) -> bytes:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self.reader.readuntil(b"\n")

    async def hears_nothing(self) -> bool:
        try:
            async with asyncio.timeout(A_MOMENT_SECONDS):
                await self.reader.readuntil(b"\n")
        except TimeoutError:
            return True
        return False


@pytest.fixture
async def echo() -> Echo:
    return Echo()


@pytest.fixture
async def link(echo: Echo) -> AsyncIterator[Link]:
    server = await asyncio.start_server(echo.serve, "127.0.0.1", 0)
    async with link_to(server.sockets[0].getsockname()) as made:
        yield made
        server.close()
    await server.wait_closed()
    assert made.connections == 0


@asynccontextmanager
async def talk(link: Link) -> AsyncGenerator[Talk]:
    reader, writer = await asyncio.open_connection("127.0.0.1", link.port)
    try:
        yield Talk(reader, writer)
    finally:
        writer.transport.abort()
        await asyncio.sleep(0)


async def test_without_a_fault_everything_passes_and_a_goodbye_too(link: Link) -> None:
    async with talk(link) as said:
        for number in range(100):
            said.say(b"a%d" % number)
        assert [await said.hear() for _ in range(100)] == [b"A%d\n" % number for number in range(100)]
        said.writer.write_eof()
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert await said.reader.read() == b""


@pytest.mark.alone
async def test_a_delay_is_as_long_as_told_both_ways_and_keeps_the_order(link: Link) -> None:
    loop = asyncio.get_running_loop()
    async with talk(link) as said:
        link.break_by(Delay(0.1))
        begun = loop.time()
        for number in range(20):
            said.say(b"a%d" % number)
            await asyncio.sleep(0)
        assert [await said.hear() for _ in range(20)] == [b"A%d\n" % number for number in range(20)]
        assert 0.2 <= loop.time() - begun < 0.4


async def test_a_swallowed_reply_is_of_something_that_was_done(link: Link, echo: Echo) -> None:
    async with talk(link) as said:
        link.break_by(SwallowReply())
        said.say(b"a")
        with pytest.raises(GONE):
            await said.hear()
        assert echo.lines == [b"a"]
        link.break_by(SwallowReply(once=True))
    for heard in (False, True):
        async with talk(link) as said:
            said.say(b"b")
            if heard:
                assert await said.hear() == b"B\n"
            else:
                with pytest.raises(GONE):
                    await said.hear()


async def test_a_reset_cuts_what_is_there_and_a_refusal_what_comes(link: Link) -> None:
    for fault, later in ((Reset(), True), (Refuse(), False)):
        async with talk(link) as said:
            said.say(b"a")
            await said.hear()
            link.break_by(fault)
            with pytest.raises(GONE):
                await said.hear()
        async with talk(link) as said:
            if later:
                said.say(b"b")
                assert await said.hear() == b"B\n"
            else:
                with pytest.raises(GONE):
                    await said.hear()
        link.heal()


async def test_what_went_into_a_black_hole_arrives_when_it_is_over(link: Link, echo: Echo) -> None:
    async with talk(link) as said:
        link.break_by(BlackHole())
        said.say(b"a")
        assert await said.hears_nothing()
        assert echo.lines == []
        link.heal()
        assert await said.hear() == b"A\n"


async def test_who_left_in_a_black_hole_is_still_heard(link: Link, echo: Echo) -> None:
    async with talk(link) as said:
        said.say(b"a")
        await said.hear()
        link.break_by(BlackHole())
        echo.heard.clear()
        said.say(b"b")
    assert not echo.heard.is_set()
    link.heal()
    async with asyncio.timeout(PATIENCE_SECONDS):
        await echo.heard.wait()
    assert echo.lines == [b"a", b"b"]


async def test_one_way_stops_the_other_way(link: Link, echo: Echo) -> None:
    for passes, arrives in ((Way.UP, True), (Way.DOWN, False)):
        async with talk(link) as said:
            link.break_by(OneWay(passes))
            echo.heard.clear()
            said.say(b"a")
            assert await said.hears_nothing()
            assert echo.heard.is_set() == arrives
            link.heal()
            assert await said.hear() == b"A\n"


async def test_slices_are_small_and_whole(link: Link, echo: Echo) -> None:
    async with talk(link) as said:
        link.break_by(Slices(1))
        said.say(b"abcdefghij" * 10)
        assert await said.hear() == b"ABCDEFGHIJ" * 10 + b"\n"
        assert echo.pieces > 10  # the kernel may put some together


async def test_a_request_is_held_before_it_is_done(link: Link, echo: Echo) -> None:
    async with talk(link) as said, talk(link) as other:
        link.break_by(Hold(b"needle", Way.UP))
        said.say(b"hay")
        assert await said.hear() == b"HAY\n"
        said.writer.write(b"a nee")
        assert await said.hears_nothing()
        said.say(b"dle")
        async with asyncio.timeout(PATIENCE_SECONDS):
            await link.held.wait()
        other.say(b"needle")
        assert await other.hear() == b"NEEDLE\n"
        assert await said.hears_nothing()
        link.heal()
        assert await said.hear() == b"A NEEDLE\n"


@pytest.mark.parametrize("behind", [0, 1])
async def test_a_reply_is_held_behind_what_was_done(link: Link, echo: Echo, behind: int) -> None:
    async with talk(link) as said:
        link.break_by(Hold(b"needle", Way.DOWN, behind=behind))
        said.say(b"needle")
        for _ in range(behind):
            assert await said.hear() == b"NEEDLE\n"
            said.say(b"thread")
        assert await said.hears_nothing()
        assert link.held.is_set()
        assert echo.lines == [b"needle", b"thread"][: behind + 1]
        link.heal()
        assert await said.hear() == (b"THREAD\n" if behind else b"NEEDLE\n")


async def test_what_was_held_of_a_link_that_is_cut_never_arrives(link: Link, echo: Echo) -> None:
    async with talk(link) as said:
        link.break_by(Hold(b"needle", Way.UP))
        said.say(b"needle")
        async with asyncio.timeout(PATIENCE_SECONDS):
            await link.held.wait()
        link.cut()
        link.heal()
        with pytest.raises(GONE):
            await said.hear()
    assert echo.lines == []


async def test_a_sender_waits_where_too_much_is_held(link: Link, echo: Echo) -> None:
    """What the kernels take besides is a few MiB at most."""
    async with talk(link) as said:
        link.break_by(BlackHole())
        much = b"x" * (32 * MAX_WAITING_BYTES)
        said.say(much)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await said.writer.drain()
        assert said.writer.transport.get_write_buffer_size() > 0
        link.heal()
        async with asyncio.timeout(PATIENCE_SECONDS):
            await said.writer.drain()
            await echo.heard.wait()
        assert echo.lines == [much]


async def test_where_no_server_is_the_client_is_told(link: Link) -> None:
    nobody = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    link.target = nobody.sockets[0].getsockname()
    nobody.close()
    await nobody.wait_closed()
    async with talk(link) as said:
        with pytest.raises(GONE):
            await said.hear()
