"""The only way out: stored, then live, to the end; whatever is lost on the way."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace

import pytest

from service.model.errors import LogUnavailable
from service.model.events import Chunk, Finish, FinishMetadata, GapData, TextDelta, TextStart, Usage
from service.model.ids import Epoch, PartId, TaskId
from service.model.log import MAX_HINTED_BYTES, Hint, Page
from service.model.position import BEGINNING, Position
from service.registry import follow
from service.registry import hub as hub_module
from service.registry.follow import Begun, Ended, Gap, Vanished
from service.registry.pages import FIRST_PAGE_EVENTS, MAX_PAGE_EVENTS, PAGE_BYTES
from tests.contracts.logs import new_task
from tests.registry.readers import HEARTBEAT_SECONDS, Library, Reader, library

pytestmark = pytest.mark.timeout(20)


@pytest.fixture
async def house() -> AsyncIterator[Library]:
    async with library() as made:
        yield made


def parts(count: int, name: str = "p") -> list[Chunk]:
    """Events that cannot be merged."""
    return [TextStart(PartId(f"{name}{i}")) for i in range(count)]


FINISH = Finish("stop", FinishMetadata(TaskId("t"), "succeeded", "", Usage(0, 0), "", ""))


class TestStoredThenLive:
    async def test_a_finished_log_from_every_position(self, house: Library) -> None:
        log = await house.open(new_task())
        positions = [await log.append(chunk) for chunk in [*parts(6), FINISH]]
        whole = await house.log(log.task_id)
        for after in [BEGINNING, *positions[:-1]]:
            reader = Reader(house.follower, log.task_id, after)
            assert isinstance(await reader.end(), Ended)
            assert whole.endswith(reader.got)
            assert reader.got.count(b"id: ") == 7 - after.n

    async def test_pitfall_02_a_reader_that_has_the_end_is_told_so_at_once(self, house: Library) -> None:
        log = await house.open(new_task())
        end = await log.append(*parts(2), FINISH)
        reader = Reader(house.follower, log.task_id, end)
        assert await reader.end() == Begun(None, Ended())

    async def test_live_frames_are_those_of_a_replay(self, house: Library) -> None:
        log = await house.open(new_task())
        reader = Reader(house.follower, log.task_id)
        await reader.begun()
        for i in range(20):
            await reader.reached(await log.append(*parts(3, f"{i}-")))
        await log.append(FINISH)
        assert isinstance(await reader.end(), Ended)
        assert reader.got == await house.log(log.task_id)
        assert reader.gaps == []

    async def test_a_task_whose_log_does_not_exist_yet_is_waited_for(self, house: Library) -> None:
        task_id = new_task()
        reader = Reader(house.follower, task_id)
        assert await reader.begun() == Begun(None, None)
        await reader.beats(2)
        log = await house.open(task_id)
        await log.append(*parts(2), FINISH)
        await reader.end()
        assert reader.got == await house.log(task_id)

    async def test_pitfall_04_a_log_of_many_pages(self, house: Library) -> None:
        log = await house.open(new_task())
        count = 2 * MAX_PAGE_EVENTS + 17
        await log.append(*parts(count), FINISH)
        for after in (BEGINNING, Position(log.last.ms, 3), Position(log.last.ms, MAX_PAGE_EVENTS)):
            reader = Reader(house.follower, log.task_id, after)
            await reader.end()
            assert reader.got.count(b"\n\n") == count + 1 - after.n

    async def test_pitfall_01_what_is_appended_while_the_reader_subscribes_is_not_lost(self, house: Library) -> None:
        for ticks in range(25):
            log = await house.open(new_task())
            reader = Reader(house.follower, log.task_id)
            for _ in range(ticks):
                await asyncio.sleep(0)
            await log.append(*parts(2), FINISH)
            await reader.end()
            assert reader.got == await house.log(log.task_id), ticks

    async def test_pitfall_66_the_end_comes_between_an_empty_page_and_live(self, house: Library) -> None:
        """The page is empty, then the terminal event is stored and its hint has passed before anyone listens for it."""
        log = await house.open(new_task())
        await log.append(*parts(1))
        read = house.store.read

        async def read_then_finish(task_id: TaskId, after: Position, count: int) -> Page:
            page = await read(task_id, after, count)
            if not page.head.closed:
                await log.append(FINISH)
            return page

        house.store.read = read_then_finish  # type: ignore[method-assign]
        reader = Reader(house.follower, log.task_id)
        assert isinstance(await reader.end(), Ended)
        assert reader.got.count(b"id: ") == 2


class TestLostHints:
    @pytest.mark.parametrize("lost", [{0}, {3}, {3, 4}, {0, 1, 2, 3, 4, 5}, {5}], ids=str)
    async def test_pitfall_11_a_lost_hint_costs_time_and_no_data(self, house: Library, lost: set[int]) -> None:
        log = await house.open(new_task())
        reader = Reader(house.follower, log.task_id)
        await reader.begun()
        count = -1

        def swallow(_: Hint) -> bool:
            nonlocal count
            count += 1
            return count in lost

        house.hints.swallow = swallow
        begun = asyncio.get_running_loop().time()
        for i in range(5):
            await log.append(*parts(2, f"{i}-"))
        await log.append(FINISH)
        await reader.end()
        assert reader.got == await house.log(log.task_id)
        assert reader.gaps == []
        assert asyncio.get_running_loop().time() - begun < 2 * HEARTBEAT_SECONDS

    async def test_the_connection_of_the_hub_breaks_in_mid_stream(self, house: Library) -> None:
        log = await house.open(new_task())
        reader = Reader(house.follower, log.task_id)
        await reader.reached(await log.append(*parts(2, "a")))
        house.hints.swallow = lambda _: True
        await log.append(*parts(2, "b"))
        house.hints.swallow = lambda _: False
        for feed in house.hints.feeds:
            feed.interrupt()
        await reader.reached(await log.append(*parts(2, "c")))
        await log.append(FINISH)
        await reader.end()
        assert reader.got == await house.log(log.task_id)

    async def test_hints_that_come_twice_or_late_or_in_disorder(self, house: Library) -> None:
        log = await house.open(new_task())
        reader = Reader(house.follower, log.task_id)
        await reader.begun()
        for i in range(6):
            await log.append(*parts(2, f"{i}-"))
        for hint in [*house.hints.published, *reversed(house.hints.published)]:
            house.hints.publish(replace(hint))
        await reader.reached(log.last)
        await log.append(FINISH)
        await reader.end()
        assert reader.got == await house.log(log.task_id)

    async def test_a_hint_without_frames_sends_the_reader_to_the_store(self, house: Library) -> None:
        log = await house.open(new_task())
        reader = Reader(house.follower, log.task_id)
        await reader.begun()
        await log.append(TextDelta(PartId("p"), "x" * MAX_HINTED_BYTES))
        assert house.hints.published[-1].frames == b""
        await reader.reached(log.last)
        await log.append(FINISH)
        await reader.end()
        assert reader.got == await house.log(log.task_id)


class TestHolders:
    async def test_a_change_of_holder_is_seen_as_one_log(self, house: Library) -> None:
        first = await house.open(new_task())
        reader = Reader(house.follower, first.task_id)
        await reader.reached(await first.append(*parts(2, "a")))
        second = await house.open(first.task_id, 2)
        await reader.reached(await second.append(*parts(2, "b")))
        await second.append(FINISH)
        await reader.end()
        assert reader.got == await house.log(first.task_id)

    async def test_pitfall_65_a_fork_below_the_cursor_is_told(self, house: Library) -> None:
        """The store loses what the reader has seen, and another holder writes other events under the same numbers."""
        first = await house.open(new_task())
        reader = Reader(house.follower, first.task_id)
        await reader.reached(await first.append(*parts(6, "a")))
        seen = reader.position
        house.store.lose(first.task_id, 2)
        second = await house.writer.open(first.task_id, Epoch(2), later_than_ms=seen.ms)
        await second.append(*parts(2, "b"))
        await reader.until(lambda r: bool(r.gaps))
        assert reader.gaps[0].data.requested == str(seen)
        await second.append(FINISH)
        await reader.end()
        assert reader.got.endswith((await house.log(first.task_id)).partition(b"id: %d-3\n" % second.last.ms)[2])
        assert len(reader.gaps) == 1

    async def test_a_tail_that_is_restored_to_the_byte_is_not_noticed(self, house: Library) -> None:
        log = await house.open(new_task())
        reader = Reader(house.follower, log.task_id)
        await reader.reached(await log.append(*parts(6)))
        house.store.lose(log.task_id, 2)
        beyond = Reader(house.follower, log.task_id, reader.position)
        await asyncio.sleep(0)
        await log.append(FINISH)
        await reader.end()
        await beyond.end()
        assert (reader.got, reader.gaps, beyond.gaps) == (await house.log(log.task_id), [], [])


class TestGaps:
    async def test_pitfall_64_a_position_that_names_nothing_is_told_of(self, house: Library) -> None:
        log = await house.open(new_task())
        last = await log.append(*parts(4), FINISH)
        whole = await house.log(log.task_id)
        for after in (Position(0, 3), Position(last.ms - 1, 9)):
            reader = Reader(house.follower, log.task_id, after)
            gap = (await reader.begun()).gap
            assert gap is not None
            assert gap.data == GapData(str(after), f"{last.ms}-1", str(last), 0)
            await reader.end()
            assert reader.got == whole
            assert b"data-gap" in gap.frame
            assert b"id:" not in gap.frame, "pitfall 7: a frame that is no event has no position"

    async def test_a_position_beyond_a_closed_log_gets_its_end(self, house: Library) -> None:
        log = await house.open(new_task())
        last = await log.append(*parts(4), FINISH)
        reader = Reader(house.follower, log.task_id, Position(last.ms + 5, 99))
        assert (await reader.begun()).gap is not None
        await reader.end()
        assert reader.position == last
        assert reader.got.count(b"id: ") == 1

    async def test_a_position_beyond_an_open_log_is_waited_for_first(
        self, house: Library, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(follow, "LOST_TAIL_PATIENCE_SECONDS", 0.4)
        log = await house.open(new_task())
        last = await log.append(*parts(4))
        reader = Reader(house.follower, log.task_id, Position(last.ms, 9))
        begun = asyncio.get_running_loop().time()
        gap = (await reader.begun()).gap
        assert asyncio.get_running_loop().time() - begun >= 0.4
        assert gap is not None
        await reader.reached(last)
        await log.append(FINISH)
        await reader.end()
        assert reader.got.count(b"id: ") == 2
        assert len(reader.gaps) == 1

    async def test_a_position_in_a_log_that_is_not_begun(self, house: Library, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(follow, "LOST_TAIL_PATIENCE_SECONDS", 0.1)
        task_id = new_task()
        reader = Reader(house.follower, task_id, Position(5, 5))
        gap = (await reader.begun()).gap
        assert gap is not None
        assert gap.data == GapData("5-5", "0-0", "0-0", 0)
        log = await house.open(task_id)
        await log.append(*parts(1), FINISH)
        await reader.end()
        assert reader.got == await house.log(task_id)

    async def test_pitfall_05_a_log_that_was_trimmed_in_front(self, house: Library) -> None:
        log = await house.open(new_task())
        await log.append(*parts(5), FINISH)
        _trim(house, log.task_id, slice(0, 3))
        reader = Reader(house.follower, log.task_id)
        gap = (await reader.begun()).gap
        assert gap is not None
        assert (gap.data.requested, gap.data.lost) == ("0-0", 3)
        await reader.end()
        assert reader.got.count(b"id: ") == 3

    async def test_a_hole_in_the_middle(self, house: Library) -> None:
        log = await house.open(new_task())
        await log.append(*parts(8), FINISH)
        _trim(house, log.task_id, slice(3, 5))
        reader = Reader(house.follower, log.task_id)
        assert (await reader.begun()).gap is None
        await reader.end()
        assert [gap.data.lost for gap in reader.gaps] == [2]
        assert reader.got.count(b"id: ") == 7

    async def test_a_hole_in_front_of_a_page_that_is_kept_is_told_to_all(self, house: Library) -> None:
        log = await house.open(new_task())
        await log.append(*parts(5 * FIRST_PAGE_EVENTS, "x" * 1900), FINISH)
        _trim(house, log.task_id, slice(FIRST_PAGE_EVENTS, 2 * FIRST_PAGE_EVENTS))
        for _ in range(2):
            reader = Reader(house.follower, log.task_id)
            await reader.end()
            assert [gap.data.lost for gap in reader.gaps] == [FIRST_PAGE_EVENTS]

    async def test_pitfall_12_a_log_that_vanished_has_no_made_up_end(
        self, house: Library, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(follow, "LOST_TAIL_PATIENCE_SECONDS", 0.1)
        log = await house.open(new_task())
        last = await log.append(*parts(5), FINISH)
        house.store.forget(log.task_id)
        house.directory.closed.add(log.task_id)
        for after in (BEGINNING, last):
            reader = Reader(house.follower, log.task_id, after)
            await assert_gone(reader, GapData(str(after), "0-0", "0-0", 0))

    async def test_a_closed_log_whose_end_is_gone(self, house: Library) -> None:
        log = await house.open(new_task())
        await log.append(*parts(5), FINISH)
        _trim(house, log.task_id, slice(4, 6))
        reader = Reader(house.follower, log.task_id)
        assert await reader.end() == Vanished()
        assert [gap.data.lost for gap in reader.gaps] == [2]
        last = reader.position
        again = Reader(house.follower, log.task_id, last)
        await assert_gone(again, GapData(str(last), f"{last.ms}-1", f"{last.ms}-6", 2))

    async def test_pitfall_12_a_log_that_was_closed_for_good_and_lost_its_end_is_told_of(self, house: Library) -> None:
        log = await house.open(new_task())
        await log.append(*parts(3), FINISH)
        house.store.lose(log.task_id, 3)
        house.directory.closed.add(log.task_id)
        reader = Reader(house.follower, log.task_id)
        assert await reader.end() == Vanished()
        (gap,) = reader.gaps
        last = reader.position
        assert gap.data == GapData(str(last), f"{last.ms}-1", str(last), 0)
        assert reader.got == await house.log(log.task_id)
        await assert_gone(Reader(house.follower, log.task_id, last), gap.data)

    async def test_pitfall_12_what_only_the_hub_remembers_of_a_closed_log_is_not_waited_for(
        self, house: Library
    ) -> None:
        """The store has lost more than the newest batch, and of that the reader's hub has heard."""
        log = await house.open(new_task())
        await log.append(*parts(3))
        last = await log.append(*parts(1))
        async with aclosing(house.follower.follow(log.task_id, last)) as listening:
            assert await anext(listening) == Begun(None, None)
            await log.append(FINISH)
            house.store.lose(log.task_id, 3)
            house.directory.closed.add(log.task_id)
            reader = Reader(house.follower, log.task_id)
            assert await reader.end() == Vanished()
            assert len(reader.gaps) == 1

    async def test_a_caught_up_reader_of_a_log_that_is_still_written_waits(self, house: Library) -> None:
        log = await house.open(new_task())
        last = await log.append(*parts(3))
        reader = Reader(house.follower, log.task_id, last)
        assert await reader.begun() == Begun(None, None)
        await reader.beats(2)
        await log.append(FINISH)
        assert isinstance(await reader.end(), Ended)

    async def test_a_log_closed_between_two_looks_has_not_vanished(self, house: Library) -> None:
        task_id = new_task()
        facts = house.directory.facts

        async def finish_meanwhile(asked: TaskId) -> object:
            if task_id not in house.directory.closed:
                house.directory.closed.add(task_id)
                log = await house.open(task_id)
                await log.append(*parts(2), FINISH)
            return await facts(asked)

        house.directory.facts = finish_meanwhile  # type: ignore[method-assign,assignment]
        reader = Reader(house.follower, task_id)
        assert isinstance(await reader.end(), Ended)


class TestStoresThatAreAway:
    async def test_pitfall_03_a_subscription_that_is_never_confirmed_is_not_waited_for_for_ever(
        self, house: Library, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(hub_module, "CONFIRM_SECONDS", 0.2)
        (feed,) = house.hints.feeds
        monkeypatch.setattr(feed, "subscribe", feed.unsubscribe)
        async with asyncio.timeout(5):
            with pytest.raises(LogUnavailable):
                await anext(house.follower.follow(new_task(), BEGINNING))
        assert house.hub._channels == {}

    async def test_before_it_begins_the_reader_is_told(self, house: Library) -> None:
        async def away(*_: object) -> Page:
            raise LogUnavailable

        house.store.read = away  # type: ignore[method-assign]
        with pytest.raises(LogUnavailable):
            await anext(house.follower.follow(new_task(), BEGINNING))

    async def test_later_on_it_is_waited_for_with_heartbeats(self, house: Library) -> None:
        log = await house.open(new_task())
        reader = Reader(house.follower, log.task_id)
        await reader.reached(await log.append(*parts(2)))
        read = house.store.read

        async def away(*_: object) -> Page:
            raise LogUnavailable

        house.store.read = away  # type: ignore[method-assign]
        house.hints.swallow = lambda _: True
        await log.append(*parts(2, "b"), FINISH)
        await reader.beats(3)
        house.store.read = read  # type: ignore[method-assign]
        await reader.end()
        assert reader.got == await house.log(log.task_id)


class TestCost:
    async def test_pitfall_18_readers_that_want_the_same_page_read_it_once(self, house: Library) -> None:
        log = await house.open(new_task())
        await log.append(*parts(3 * MAX_PAGE_EVENTS), FINISH)
        reads = 0
        read = house.store.read

        async def counted(task_id: TaskId, after: Position, count: int) -> Page:
            nonlocal reads
            reads += 1
            await asyncio.sleep(0)
            return await read(task_id, after, count)

        house.store.read = counted  # type: ignore[method-assign]
        readers = [Reader(house.follower, log.task_id) for _ in range(200)]
        for reader in readers:
            await reader.end()
        assert len({reader.got for reader in readers}) == 1
        assert reads <= 8

    async def test_pitfall_14_pages_of_long_events_are_short(self, house: Library) -> None:
        log = await house.open(new_task())
        for i in range(3 * FIRST_PAGE_EVENTS):
            await log.put(TextDelta(PartId(f"p{i}"), "x" * 20_000))
        await log.append(FINISH)
        reader = Reader(house.follower, log.task_id)
        await reader.end()
        sizes = [len(item.frames) for item in reader.items if isinstance(item, follow.Frames)]
        assert max(sizes[1:]) <= PAGE_BYTES + 20_000
        assert reader.got.count(b"id: ") == 3 * FIRST_PAGE_EVENTS + 1

    async def test_live_readers_share_one_subscription_and_the_same_bytes(self, house: Library) -> None:
        log = await house.open(new_task())
        readers = [Reader(house.follower, log.task_id) for _ in range(50)]
        for reader in readers:
            await reader.begun()
        await log.append(*parts(3))
        for reader in readers:
            await reader.reached(log.last)
        frames = [reader.items[-1] for reader in readers]
        assert len({id(item.frames) for item in frames if isinstance(item, follow.Frames)}) == 1
        assert len(house.hub._channels) == 1
        for reader in readers:
            await reader.leave()
        assert house.hub._channels == {}

    async def test_pitfall_14_a_reader_that_stops_costs_no_memory_and_misses_nothing(self, house: Library) -> None:
        log = await house.open(new_task())
        stopped = house.follower.follow(log.task_id, BEGINNING)
        await anext(stopped)
        live = Reader(house.follower, log.task_id)
        await live.begun()
        for i in range(400):
            await live.reached(await log.append(TextDelta(PartId(f"p{i}"), "x" * 10_000)))
        (channel,) = house.hub._channels.values()
        assert channel._bytes <= 300_000
        got = b""
        await log.append(FINISH)
        async for item in stopped:
            got += item.frames if isinstance(item, follow.Frames) else b""
        await live.end()
        assert got == live.got


async def assert_gone(reader: Reader, gap: GapData) -> None:
    """It is told at once that nothing follows, and gets nothing else."""
    assert await reader.end() == Begun(Gap(gap), Vanished())
    assert len(reader.items) == 1


def _trim(house: Library, task_id: TaskId, cut: slice) -> None:
    """Take events out behind the store's back."""
    log = house.store._logs[task_id]
    del log.positions[cut], log.events[cut]
