"""What every `LogStore` and its `Hints` promise, over memory, fakeredis, the embedded Valkey and a Redis 7."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace

import pytest

from service.model.encoding import frames, unframed
from service.model.ids import Epoch, TaskId
from service.model.log import (
    Closed,
    Fenced,
    Head,
    Hint,
    Interrupted,
    Invalid,
    Listening,
    Lost,
    Opened,
    Stored,
    StoredEvent,
    Unopened,
)
from service.model.position import BEGINNING, Position
from service.model.trace import TraceParent
from service.registry.ports import HintFeed, LogStore
from tests.contracts.conftest import Backend
from tests.contracts.logs import batch, event, new_task

TRACE = TraceParent("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
LATER_TRACE = TraceParent("00-4bf92f3577b34da6a3ce929d0e0e4736-b7ad6b7169203331-00")


async def stored(logs: LogStore, task_id: TaskId) -> list[StoredEvent]:
    """The whole log."""
    return list((await logs.read(task_id, BEGINNING, 10_000)).events)


async def opened(logs: LogStore, epoch: int = 1) -> TaskId:
    """A new log, opened."""
    task_id = new_task()
    assert await logs.open(task_id, Epoch(epoch), BEGINNING) == Opened(BEGINNING, closed=False)
    return task_id


class TestOpen:
    async def test_a_repeat_is_harmless(self, backend: Backend) -> None:
        task_id = await opened(backend.logs)
        await backend.logs.append([batch(task_id, 1, [1, 2])])
        again = await backend.logs.open(task_id, Epoch(1), BEGINNING)
        assert again == Opened(Position(1000, 2), closed=False)

    async def test_a_later_holder_learns_how_far_the_log_reaches(self, backend: Backend) -> None:
        task_id = await opened(backend.logs)
        await backend.logs.append([batch(task_id, 1, [1, 2, 3], terminal=True)])
        assert await backend.logs.open(task_id, Epoch(2), BEGINNING) == Opened(Position(1000, 3), closed=True)

    async def test_an_older_holder_is_told_of_the_later_one(self, backend: Backend) -> None:
        task_id = await opened(backend.logs, epoch=7)
        assert await backend.logs.open(task_id, Epoch(6), BEGINNING) == Fenced(Epoch(7))

    async def test_a_log_behind_what_exists_elsewhere_goes_on_after_that(self, backend: Backend) -> None:
        task_id = await opened(backend.logs)
        await backend.logs.append([batch(task_id, 1, [1])])
        floor = Position(5000, 40)
        assert await backend.logs.open(task_id, Epoch(2), floor) == Opened(floor, closed=False)
        assert await stored(backend.logs, task_id) == []
        assert await backend.logs.append([batch(task_id, 2, [41], ms=5001, before=floor)]) == [Stored()]

    async def test_a_floor_below_the_log_changes_nothing(self, backend: Backend) -> None:
        task_id = await opened(backend.logs)
        await backend.logs.append([batch(task_id, 1, [1, 2])])
        await backend.logs.open(task_id, Epoch(2), Position(900, 1))
        assert len(await stored(backend.logs, task_id)) == 2


class TestAppend:
    async def test_what_is_stored_is_read_to_the_byte(self, backend: Backend) -> None:
        task_id = await opened(backend.logs)
        first = batch(task_id, 1, [1, 2], text='\u2028 é 世 \\ " \U0001f642 ')
        assert await backend.logs.append([first]) == [Stored()]
        assert await stored(backend.logs, task_id) == unframed(first.frames)
        assert await backend.logs.head(task_id) == Head(Position(1000, 2), closed=False, epoch=Epoch(1))

    async def test_batches_of_several_logs_have_their_own_results_in_order(self, backend: Backend) -> None:
        first, second, third = [await opened(backend.logs) for _ in range(3)]
        await backend.logs.open(second, Epoch(9), BEGINNING)
        results = await backend.logs.append([batch(first, 1, [1]), batch(second, 1, [1]), batch(third, 1, [2])])
        assert results == [Stored(), Fenced(Epoch(9)), Lost(BEGINNING)]

    async def test_pitfall_24_a_batch_that_comes_again_is_stored_once(self, backend: Backend) -> None:
        task_id = await opened(backend.logs)
        same = batch(task_id, 1, [1, 2, 3])
        assert [await backend.logs.append([same]) for _ in range(3)] == [[Stored()]] * 3
        assert len(await stored(backend.logs, task_id)) == 3

    async def test_of_a_batch_that_is_there_in_part_the_rest_is_stored(self, backend: Backend) -> None:
        task_id = await opened(backend.logs)
        await backend.logs.append([batch(task_id, 1, [1, 2])])
        whole = batch(task_id, 1, [1, 2, 3, 4], before=BEGINNING)
        assert await backend.logs.append([whole]) == [Stored()]
        assert await stored(backend.logs, task_id) == unframed(whole.frames)

    async def test_an_older_holder_stores_nothing(self, backend: Backend) -> None:
        task_id = await opened(backend.logs)
        await backend.logs.open(task_id, Epoch(2), BEGINNING)
        assert await backend.logs.append([batch(task_id, 1, [1])]) == [Fenced(Epoch(2))]
        assert await stored(backend.logs, task_id) == []

    async def test_pitfall_23_a_log_that_nobody_opened_takes_nothing(self, backend: Backend) -> None:
        task_id = new_task()
        assert await backend.logs.append([batch(task_id, 1, [1])]) == [Unopened()]
        assert await backend.logs.head(task_id) == Head(BEGINNING, closed=False, epoch=Epoch(0))

    async def test_a_holder_that_the_store_has_not_seen_opens_first(self, backend: Backend) -> None:
        task_id = await opened(backend.logs)
        assert await backend.logs.append([batch(task_id, 2, [1])]) == [Unopened()]

    async def test_a_batch_that_does_not_join_says_how_far_the_log_reaches(self, backend: Backend) -> None:
        task_id = await opened(backend.logs)
        await backend.logs.append([batch(task_id, 1, [1, 2])])
        assert await backend.logs.append([batch(task_id, 1, [4])]) == [Lost(Position(1000, 2))]
        assert len(await stored(backend.logs, task_id)) == 2

    async def test_pitfall_19_nothing_follows_the_terminal_event(self, backend: Backend) -> None:
        task_id = await opened(backend.logs)
        await backend.logs.append([batch(task_id, 1, [1], terminal=True)])
        assert await backend.logs.append([batch(task_id, 1, [2])]) == [Closed()]
        await backend.logs.open(task_id, Epoch(2), BEGINNING)
        assert await backend.logs.append([batch(task_id, 2, [2], terminal=True)]) == [Closed()]
        assert len(await stored(backend.logs, task_id)) == 1

    async def test_pitfall_62_a_lost_reply_to_the_last_batch_is_no_foreign_end(self, backend: Backend) -> None:
        task_id = await opened(backend.logs)
        last = batch(task_id, 1, [1, 2], terminal=True)
        assert await backend.logs.append([last]) == [Stored()]
        assert await backend.logs.append([last]) == [Stored()]

    @pytest.mark.parametrize("backend", ["fakeredis", "valkey", "redis7"], indirect=True)
    async def test_pitfall_63_a_batch_with_one_bad_position_stores_nothing(self, backend: Backend) -> None:
        task_id = await opened(backend.logs)
        good = batch(task_id, 1, [1, 2, 3])
        for bad in ([event(1000, 1), event(999, 2)], [event(1000, 1), event(1000, 3)], [event(1000, 1), (b"x", b"{}")]):
            broken = type(good)(task_id, Epoch(1), BEGINNING, Position(1000, 2), frames(bad), terminal=False)
            (result,) = await backend.logs.append([broken])
            assert result == Invalid()
            assert await stored(backend.logs, task_id) == []
        assert await backend.logs.append([good]) == [Stored()]


class TestScripts:
    @pytest.mark.parametrize("backend", ["fakeredis", "valkey", "own redis7"], indirect=True)
    async def test_a_store_that_forgot_the_scripts_gets_them_again(self, backend: Backend) -> None:
        assert backend.redis is not None
        first, second = await opened(backend.logs), await opened(backend.logs)
        await backend.redis.script_flush()
        assert await backend.logs.append([batch(first, 1, [1]), batch(second, 1, [1])]) == [Stored(), Stored()]
        await backend.redis.script_flush()
        assert isinstance(await backend.logs.open(first, Epoch(2), BEGINNING), Opened)

    @pytest.mark.parametrize("backend", ["valkey", "redis7"], indirect=True)
    async def test_connections_that_the_store_has_closed_are_not_used_again(self, backend: Backend) -> None:
        assert backend.connections is not None
        task_ids = [await opened(backend.logs) for _ in range(8)]
        for n in (1, 2):
            batches = [batch(task_id, 1, [n]) for task_id in task_ids]
            assert await asyncio.gather(*(backend.logs.append([each]) for each in batches)) == [[Stored()]] * 8
            await backend.connections.kill(subscribed=False)

    @pytest.mark.parametrize("backend", ["valkey", "own redis7"], indirect=True)
    async def test_the_replies_of_a_call_that_was_given_up_are_nobody_elses(self, backend: Backend) -> None:
        assert backend.redis is not None
        task_id = await opened(backend.logs)
        await backend.logs.append([batch(task_id, 1, [1])])
        await backend.redis.client_pause(100, all=False)  # writes wait
        given_up = asyncio.create_task(backend.logs.append([batch(task_id, 1, [2], terminal=True)]))
        await asyncio.sleep(0)  # over a connection that is there, it is sent in one go
        assert not given_up.done()
        given_up.cancel()
        await asyncio.wait([given_up])
        assert isinstance(await backend.logs.open(task_id, Epoch(2), BEGINNING), Opened)
        (result,) = await backend.logs.append([batch(task_id, 1, [3])])
        assert result == Fenced(Epoch(2))


class TestRead:
    async def test_after_a_position_come_the_events_behind_it(self, backend: Backend) -> None:
        task_id = await opened(backend.logs)
        events = unframed(batch(task_id, 1, range(1, 8)).frames)
        await backend.logs.append([batch(task_id, 1, range(1, 8))])
        page = await backend.logs.read(task_id, Position(1000, 2), 3)
        assert (page.known, list(page.events), page.head.last.n) == (True, events[2:5], 7)

    async def test_a_page_says_in_which_span_its_newest_events_were_written(self, backend: Backend) -> None:
        """From wherever in a batch it is read; of a log that is not traced it says nothing."""
        task_id = await opened(backend.logs)
        for traced in (
            replace(batch(task_id, 1, [1, 2, 3]), trace=TRACE),
            replace(batch(task_id, 1, [4, 5]), trace=LATER_TRACE),
            batch(task_id, 1, [6]),
        ):
            assert await backend.logs.append([traced]) == [Stored()]
        pages = [(0, 3, TRACE), (2, 1, TRACE), (0, 4, TRACE), (0, 2, None), (0, 6, LATER_TRACE), (4, 2, LATER_TRACE)]
        for after, count, trace in [*pages, (5, 1, None)]:
            page = await backend.logs.read(task_id, Position(1000, after) if after else BEGINNING, count)
            assert (page.trace, page.events) == (
                trace,
                [event(1000, n, f"x{n}") for n in range(after + 1, after + count + 1)],
            )

    async def test_from_the_beginning(self, backend: Backend) -> None:
        task_id = await opened(backend.logs)
        await backend.logs.append([batch(task_id, 1, [1, 2])])
        page = await backend.logs.read(task_id, BEGINNING, 1)
        assert (page.known, len(page.events)) == (True, 1)

    async def test_at_the_end_there_is_nothing_more(self, backend: Backend) -> None:
        task_id = await opened(backend.logs)
        await backend.logs.append([batch(task_id, 1, [1, 2], terminal=True)])
        page = await backend.logs.read(task_id, Position(1000, 2), 10)
        assert (page.known, list(page.events), page.head.closed) == (True, [], True)

    @pytest.mark.parametrize(
        ("after", "following"), [(Position(0, 2), 3), (Position(999, 5), 3), (Position(1000, 9), 0)], ids=str
    )
    async def test_pitfall_64_a_position_that_names_no_event(
        self, backend: Backend, after: Position, following: int
    ) -> None:
        task_id = await opened(backend.logs)
        await backend.logs.append([batch(task_id, 1, [1, 2, 3])])
        page = await backend.logs.read(task_id, after, 10)
        assert (page.known, len(page.events)) == (False, following)

    async def test_a_log_that_does_not_exist_is_empty(self, backend: Backend) -> None:
        page = await backend.logs.read(new_task(), BEGINNING, 10)
        assert (page.known, list(page.events), page.head) == (True, [], Head(BEGINNING, False, Epoch(0)))


@asynccontextmanager
async def listening(backend: Backend, *tasks: TaskId) -> AsyncIterator[tuple[HintFeed, "asyncio.Queue[object]"]]:
    """A feed that is confirmed for these tasks, and what it brings from then on."""
    items: asyncio.Queue[object] = asyncio.Queue()
    async with backend.hints.connect() as feed:

        async def pump() -> None:
            async with aclosing(feed.items()) as source:
                async for item in source:
                    items.put_nowait(item)

        pumping = asyncio.create_task(pump())
        for task_id in tasks:
            await feed.subscribe(task_id)
        confirmed = {await asyncio.wait_for(items.get(), 5) for _ in tasks}
        assert confirmed == {Listening(task_id) for task_id in tasks}
        yield feed, items
        pumping.cancel()
        await asyncio.wait([pumping])


class TestHints:
    async def test_one_hint_a_batch_with_its_frames(self, backend: Backend) -> None:
        task_id = await opened(backend.logs)
        async with listening(backend, task_id) as (_, items):
            sent = [batch(task_id, 1, [1, 2]), batch(task_id, 1, [3], terminal=True)]
            for one in sent:
                await backend.logs.append([one])
            assert [await asyncio.wait_for(items.get(), 5) for _ in sent] == [
                Hint(task_id, Epoch(1), BEGINNING, Position(1000, 2), False, sent[0].frames),
                Hint(task_id, Epoch(1), Position(1000, 2), Position(1000, 3), True, sent[1].frames),
            ]

    async def test_a_hint_says_in_which_span_its_events_were_written(self, backend: Backend) -> None:
        task_id = await opened(backend.logs)
        async with listening(backend, task_id) as (_, items):
            for trace in (TRACE, None):
                hinted = replace(batch(task_id, 1, [1 if trace else 2]), trace=trace)
                await backend.logs.append([hinted])
                hint = await asyncio.wait_for(items.get(), 5)
                assert isinstance(hint, Hint)
                assert (hint.trace, hint.frames) == (trace, hinted.frames)

    async def test_what_was_there_in_part_is_hinted_at_without_frames(self, backend: Backend) -> None:
        task_id = await opened(backend.logs)
        await backend.logs.append([batch(task_id, 1, [1, 2])])
        async with listening(backend, task_id) as (_, items):
            await backend.logs.append([batch(task_id, 1, [1, 2, 3], before=BEGINNING)])
            hint = await asyncio.wait_for(items.get(), 5)
            assert hint == Hint(task_id, Epoch(1), Position(1000, 2), Position(1000, 3), False, b"")

    async def test_what_is_refused_or_repeated_is_not_hinted_at(self, backend: Backend) -> None:
        task_id, other = await opened(backend.logs), await opened(backend.logs)
        await backend.logs.append([batch(task_id, 1, [1])])
        async with listening(backend, task_id, other) as (_, items):
            await backend.logs.append([batch(task_id, 1, [1]), batch(task_id, 1, [5])])
            await backend.logs.append([batch(other, 1, [1])])
            hint = await asyncio.wait_for(items.get(), 5)
            assert isinstance(hint, Hint)
            assert hint.task_id == other

    async def test_a_task_that_is_wanted_no_more_is_not_heard(self, backend: Backend) -> None:
        task_id, other = await opened(backend.logs), await opened(backend.logs)
        async with listening(backend, task_id, other) as (feed, items):
            await feed.unsubscribe(task_id)
            await backend.logs.append([batch(task_id, 1, [1])])
            await backend.logs.append([batch(other, 1, [1])])
            hint = await asyncio.wait_for(items.get(), 5)
            assert isinstance(hint, Hint)
            assert hint.task_id == other

    @pytest.mark.parametrize("backend", ["valkey", "redis7"], indirect=True)
    async def test_pitfall_77_a_connection_that_breaks_is_spoken_of(self, backend: Backend) -> None:
        assert backend.connections is not None
        task_id = await opened(backend.logs)
        async with listening(backend, task_id) as (_, items):
            await backend.connections.kill(subscribed=True)
            assert await asyncio.wait_for(items.get(), 5) == Interrupted()
            assert await asyncio.wait_for(items.get(), 5) == Listening(task_id)
            await backend.logs.append([batch(task_id, 1, [1])])
            assert isinstance(await asyncio.wait_for(items.get(), 5), Hint)
