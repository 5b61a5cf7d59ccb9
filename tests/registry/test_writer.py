"""The only way in: numbering, group commit, repeats, fencing, repair."""

import asyncio
import random
from itertools import permutations

import pytest

from service.adapters.memory_log import MemoryLogStore
from service.model.encoding import decode, encode
from service.model.errors import InvalidBatch, LogClosed, LogTailLost, LogUnavailable, TakenOver
from service.model.events import Chunk, Finish, FinishMetadata, StartStep, TextDelta, TextStart, Usage
from service.model.ids import Epoch, PartId, TaskId
from service.model.position import BEGINNING, Position
from service.registry import task_log, writer
from service.registry.task_log import MAX_BUFFERED_BYTES, MAX_KEPT_BYTES, TaskLog
from service.registry.writer import MAX_LOGS_A_TRIP, MAX_TRIP_BYTES, TRIPS_AT_ONCE
from tests.contracts.logs import batch, new_task
from tests.registry.conftest import Desk
from tests.registry.faulty import Fault


@pytest.fixture(autouse=True)
def _soon_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """How long is waited between two tries is nothing that these tests are about."""
    for module in (task_log, writer):
        monkeypatch.setattr(module, "RETRY_WAITS", (0.001,))


def delta(text: str, part: str = "p") -> TextDelta:
    return TextDelta(PartId(part), text)


def finish() -> Finish:
    return Finish("stop", FinishMetadata(TaskId("t"), "succeeded", "", Usage(0, 0), "", ""))


def parts(count: int) -> list[Chunk]:
    """Events that cannot be merged."""
    return [TextStart(PartId(f"p{i}")) for i in range(count)]


async def opened(desk: Desk, epoch: int = 1, task_id: TaskId | None = None) -> TaskLog:
    return await desk.writer.open(task_id or new_task(), Epoch(epoch))


class TestPositions:
    async def test_they_are_dense_and_say_when(self, desk: Desk) -> None:
        log = await opened(desk)
        first = await log.append(*parts(3))
        desk.now_ms += 7
        second = await log.append(StartStep())
        assert (first, second) == (Position(desk.now_ms - 7, 3), Position(desk.now_ms, 4))
        assert [event[0] for event in await desk.log(log.task_id)] == [
            b"%d-%d" % (desk.now_ms - (7 if n < 4 else 0), n) for n in (1, 2, 3, 4)
        ]

    async def test_time_never_goes_back_within_a_log(self, desk: Desk) -> None:
        log = await opened(desk)
        before = await log.append(StartStep())
        desk.now_ms -= 86_400_000
        assert await log.append(StartStep()) == Position(before.ms, 2)
        next_holder = await opened(desk, 2, log.task_id)
        assert await next_holder.append(StartStep()) == Position(before.ms, 3)


class TestGroupCommit:
    async def test_what_gathers_travels_together(self, desk: Desk) -> None:
        logs = [await opened(desk) for _ in range(40)]
        await asyncio.gather(*(log.append(*parts(5)) for log in logs))
        assert [len(trip) for trip in desk.store.appends] == [
            MAX_LOGS_A_TRIP,
            MAX_LOGS_A_TRIP,
            40 - 2 * MAX_LOGS_A_TRIP,
        ]
        assert {one.last.n - one.before.n for trip in desk.store.appends for one in trip} == {5}

    async def test_the_next_batch_gathers_while_one_is_under_way(self, desk: Desk) -> None:
        log = await opened(desk)
        for chunk in parts(100):
            await log.put(chunk)
            await asyncio.sleep(0)
        await log.flush()
        assert len(await desk.log(log.task_id)) == 100
        assert len(desk.store.appends) < 100

    async def test_deltas_of_one_part_that_wait_together_become_one(self, desk: Desk) -> None:
        log = await opened(desk)
        texts = ['say "', "\\", "\u2028", "é", "\n", "\U0001f642", '","delta":"']
        for text in texts:
            await log.put(delta(text))
        await log.put(delta("other", "q"))
        await log.flush()
        assert [decode(data) for _, data in await desk.log(log.task_id)] == [
            delta("".join(texts)),
            delta("other", "q"),
        ]

    async def test_every_appender_learns_where_its_event_stands(self, desk: Desk) -> None:
        log = await opened(desk)
        positions = await asyncio.gather(*(log.append(chunk) for chunk in parts(8)))
        assert [position.n for position in positions] == list(range(1, 9))

    async def test_a_batch_is_cut_where_it_grows_too_long(self, desk: Desk) -> None:
        log = await opened(desk)
        for i in range(10):
            await log.put(delta("x" * 100_000, f"p{i}"))
        await log.flush()
        assert len(await desk.log(log.task_id)) == 10
        sent = [one for trip in desk.store.appends for one in trip]
        assert max(one.last.n - one.before.n for one in sent) == 2
        assert not any(one.hinted_frames for one in sent)

    @pytest.mark.parametrize("count", range(1, 7))
    async def test_only_the_last_piece_of_a_long_last_batch_closes_the_log(self, desk: Desk, count: int) -> None:
        log = await opened(desk)
        last = await log.append(*(delta("x" * 100_000, f"p{i}") for i in range(count)), finish())
        events = await desk.log(log.task_id)
        assert (len(events), decode(events[-1][1]), last.n) == (count + 1, finish(), count + 1)
        assert (await desk.store.head(log.task_id)).closed
        sent = [one for trip in desk.store.appends for one in trip]
        assert [one.terminal for one in sent] == [False] * (len(sent) - 1) + [True]


class TestLostReplies:
    @pytest.mark.parametrize("fault", [Fault.REPLY_LOST, Fault.REQUEST_LOST, Fault.REFUSED])
    @pytest.mark.parametrize("times", [1, 3])
    @pytest.mark.parametrize("kind", ["first", "middle", "one", "many", "last"])
    async def test_pitfall_24_every_kind_of_batch_is_stored_once(
        self, desk: Desk, kind: str, fault: Fault, times: int
    ) -> None:
        log = await opened(desk)
        if kind != "first":
            await log.append(*parts(3))
        desk.store.faults.extend([fault] * times)
        chunks = {"many": parts(5), "last": [*parts(2), finish()]}.get(kind, parts(1))
        last = await log.append(*chunks)
        events = await desk.log(log.task_id)
        assert [event[1] for event in events[-len(chunks) :]] == [encode(chunk) for chunk in chunks]
        assert [Position.parse(event[0].decode()).n for event in events] == list(range(1, last.n + 1))
        sent = [one for trip in desk.store.appends for one in trip if one.last == last]
        assert len(sent) == times + 1
        assert all(again is sent[0] for again in sent), "a batch that was sent never changes"

    async def test_what_comes_in_meanwhile_stands_behind_it(self, desk: Desk) -> None:
        log = await opened(desk)
        desk.store.faults.extend([Fault.REPLY_LOST, Fault.REPLY_LOST])
        first = asyncio.create_task(log.append(*parts(2)))
        await desk.store.until(1)
        second = asyncio.create_task(log.append(StartStep()))
        assert ((await first).n, (await second).n) == (2, 3)
        assert len(await desk.log(log.task_id)) == 3

    async def test_one_log_that_is_refused_does_not_hold_up_the_others(self, memory_desk: Desk) -> None:
        held, free = await opened(memory_desk), await opened(memory_desk)
        memory_desk.store.faults.append(Fault.REFUSED)
        waiting = asyncio.create_task(held.append(StartStep()))
        await memory_desk.store.until(1)
        assert (await free.append(StartStep())).n == 1
        assert (await waiting).n == 1

    async def test_a_log_that_is_refused_waits_however_much_its_producer_says(
        self, memory_desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(task_log, "RETRY_WAITS", (60.0,))
        log, other = await opened(memory_desk), await opened(memory_desk)
        memory_desk.store.faults.append(Fault.REFUSED)
        await log.put(StartStep())
        await memory_desk.store.until(1)
        for i in range(20):
            await log.put(delta("x", f"p{i}"))
            await other.append(StartStep())
        assert [one.task_id for trip in memory_desk.store.appends for one in trip].count(log.task_id) == 1

    async def test_a_batch_that_no_log_can_take_is_not_sent_again(self, memory_desk: Desk) -> None:
        log = await opened(memory_desk)
        memory_desk.store.faults.append(Fault.INVALID)
        with pytest.raises(InvalidBatch):
            await log.append(StartStep())
        with pytest.raises(InvalidBatch):
            await log.put(StartStep())
        assert len(memory_desk.store.appends) == 1


class TestTrips:
    async def test_a_trip_that_takes_long_holds_up_its_own_logs_only(self, memory_desk: Desk) -> None:
        held, free = await opened(memory_desk), await opened(memory_desk)
        memory_desk.store.faults.append(Fault.HELD)
        waiting = asyncio.create_task(held.append(StartStep()))
        await memory_desk.store.until(1)
        assert [(await free.append(StartStep())).n for _ in range(3)] == [1, 2, 3]
        assert not waiting.done()
        memory_desk.store.release()
        assert (await waiting).n == 1

    async def test_a_log_never_makes_two_trips_at_once(self, memory_desk: Desk) -> None:
        log, other = await opened(memory_desk), await opened(memory_desk)
        memory_desk.store.faults.append(Fault.HELD)
        first = asyncio.create_task(log.append(*parts(2)))
        await memory_desk.store.until(1)
        later = [asyncio.create_task(log.append(chunk)) for chunk in parts(3)]
        for _ in range(3):
            await other.append(StartStep())
        assert [one.task_id for trip in memory_desk.store.appends[1:] for one in trip] == [other.task_id] * 3
        memory_desk.store.release()
        assert [(await one).n for one in (first, *later)] == [2, 3, 4, 5]

    async def test_a_log_whose_trip_failed_waits_before_the_next_and_so_does_nobody_else(
        self, memory_desk: Desk
    ) -> None:
        failing, free = await opened(memory_desk), await opened(memory_desk)
        memory_desk.store.faults.extend([Fault.REQUEST_LOST])
        waiting = asyncio.create_task(failing.append(StartStep()))
        await memory_desk.store.until(1)
        assert (await free.append(StartStep())).n == 1
        assert [len(trip) for trip in memory_desk.store.appends] == [1, 1]
        assert (await waiting).n == 1

    async def test_only_so_many_trips_are_under_way(self, memory_desk: Desk) -> None:
        logs = [await opened(memory_desk) for _ in range(TRIPS_AT_ONCE * MAX_LOGS_A_TRIP + 1)]
        memory_desk.store.faults.extend([Fault.HELD] * TRIPS_AT_ONCE)
        waiting = [asyncio.create_task(log.append(StartStep())) for log in logs]
        await memory_desk.store.until(TRIPS_AT_ONCE)
        await asyncio.sleep(0)
        assert [len(trip) for trip in memory_desk.store.appends] == [MAX_LOGS_A_TRIP] * TRIPS_AT_ONCE
        memory_desk.store.release()
        assert {(await one).n for one in waiting} == {1}

    async def test_a_trip_takes_no_further_log_when_it_is_long(self, memory_desk: Desk) -> None:
        logs = [await opened(memory_desk) for _ in range(12)]
        chunks = [delta("x" * 100_000, f"p{i}") for i in range(2)]
        await asyncio.gather(*(log.append(*chunks) for log in logs))
        sizes = [sum(len(one.frames) for one in trip) for trip in memory_desk.store.appends]
        assert len(sizes) == 2
        assert max(sizes) <= MAX_TRIP_BYTES + 200_100

    @pytest.mark.parametrize("seed", range(20))
    async def test_many_logs_over_a_store_that_fails_at_random(self, memory_desk: Desk, seed: int) -> None:
        chance = random.Random(seed)
        kinds = [Fault.NONE, Fault.REPLY_LOST, Fault.REQUEST_LOST, Fault.REFUSED]
        memory_desk.store.faults.extend(chance.choices(kinds, (6, 1, 1, 1), k=40))
        logs = [await opened(memory_desk) for _ in range(60)]

        async def write(log: TaskLog) -> list[bytes]:
            said: list[Chunk] = []
            for _ in range(chance.randint(1, 8)):
                said += (chunks := parts(chance.randint(1, 4)))
                await log.append(*chunks)
            return [encode(chunk) for chunk in said]

        written = await asyncio.gather(*map(write, logs))
        for log, said in zip(logs, written, strict=True):
            events = await memory_desk.log(log.task_id)
            assert [data for _, data in events] == said
            assert [Position.stored(position).n for position, _ in events] == list(range(1, len(said) + 1))


class TestBounds:
    async def test_pitfall_10_a_store_that_is_away_blocks_the_producer_and_drops_nothing(
        self, memory_desk: Desk
    ) -> None:
        log = await opened(memory_desk)
        memory_desk.store.faults.extend([Fault.REQUEST_LOST] * 4)
        accepted = 0

        async def produce() -> None:
            nonlocal accepted
            for i in range(30):
                await log.put(delta("x" * 100_000, f"p{i}"))
                accepted += 1

        producing = asyncio.create_task(produce())
        await memory_desk.store.until(3)
        assert accepted * 100_000 <= MAX_BUFFERED_BYTES + 4 * 100_000
        assert await memory_desk.log(log.task_id) == []
        await producing
        await log.flush()
        assert len(await memory_desk.log(log.task_id)) == 30

    async def test_nothing_goes_in_behind_the_finish(self, desk: Desk) -> None:
        log = await opened(desk)
        await log.append(finish())
        with pytest.raises(LogClosed):
            await log.append(StartStep())
        assert len(await desk.log(log.task_id)) == 1


class TestLoss:
    @pytest.mark.parametrize("keep", range(6))
    async def test_a_lost_tail_that_is_kept_comes_back_to_the_byte(self, memory_desk: Desk, keep: int) -> None:
        log = await opened(memory_desk)
        await log.append(*parts(3))
        await log.append(*parts(3))
        whole = await memory_desk.log(log.task_id)
        _memory(memory_desk).lose(log.task_id, keep)
        await log.append(StartStep())
        assert (await memory_desk.log(log.task_id))[:6] == whole
        assert len(await memory_desk.log(log.task_id)) == 7

    async def test_lost_again_while_it_is_repaired(self, memory_desk: Desk) -> None:
        log = await opened(memory_desk)
        for _ in range(5):
            await log.append(delta("x" * 200_000))
        whole = await memory_desk.log(log.task_id)
        _memory(memory_desk).lose(log.task_id, 1)
        memory_desk.store.faults.extend([Fault.NONE, Fault.NONE, Fault.REPLY_LOST])
        appending = asyncio.create_task(log.append(finish()))
        await memory_desk.store.until(7)
        _memory(memory_desk).lose(log.task_id, 0)
        await appending
        assert (await memory_desk.log(log.task_id))[:5] == whole
        assert (await memory_desk.store.head(log.task_id)).closed

    async def test_a_tail_of_a_former_holder_cannot_be_repaired(self, memory_desk: Desk) -> None:
        first = await opened(memory_desk)
        await first.append(*parts(4))
        second = await opened(memory_desk, 2, first.task_id)
        await second.append(*parts(1))
        _memory(memory_desk).lose(first.task_id, 2)
        with pytest.raises(LogTailLost):
            await second.append(StartStep())
        with pytest.raises(LogTailLost):
            await second.put(StartStep())
        third = await memory_desk.writer.open(first.task_id, Epoch(3), later_than_ms=second.last.ms)
        position = await third.append(StartStep())
        assert (position.n, position.ms > second.last.ms) == (3, True)

    async def test_a_tail_longer_than_what_is_kept_cannot_be_repaired(self, memory_desk: Desk) -> None:
        log = await opened(memory_desk)
        size = 200_000
        for i in range(MAX_KEPT_BYTES // size + 3):
            await log.append(delta("x" * size, f"p{i}"))
        _memory(memory_desk).lose(log.task_id, 1)
        with pytest.raises(LogTailLost):
            await log.append(StartStep())

    async def test_a_store_that_forgot_the_holder(self, memory_desk: Desk) -> None:
        log = await opened(memory_desk)
        await log.append(StartStep())
        _memory(memory_desk).forget(log.task_id)
        with pytest.raises(LogTailLost):
            await log.append(StartStep())


class TestFencing:
    async def test_pitfall_22_a_holder_that_was_replaced_stores_nothing(self, desk: Desk) -> None:
        old = await opened(desk)
        await old.append(*parts(2))
        await opened(desk, 2, old.task_id)
        waiting = [asyncio.create_task(old.append(chunk)) for chunk in parts(3)]
        for one in waiting:
            with pytest.raises(TakenOver):
                await one
        with pytest.raises(TakenOver):
            await old.flush()
        assert len(await desk.log(old.task_id)) == 2

    async def test_an_older_holder_cannot_open(self, desk: Desk) -> None:
        log = await opened(desk, 5)
        with pytest.raises(TakenOver):
            await opened(desk, 4, log.task_id)

    async def test_a_log_that_somebody_else_closed(self, desk: Desk) -> None:
        log = await opened(desk)
        await desk.store.inner.append([batch(log.task_id, 1, [1], terminal=True)])
        with pytest.raises(LogClosed):
            await log.append(*parts(2))

    @pytest.mark.parametrize("lost", [False, True], ids=["replies heard", "replies lost"])
    async def test_pitfall_61_two_holders_in_every_order_make_one_history(self, desk: Desk, lost: bool) -> None:
        """Old: open, append, append. New: open, read, append. Every interleaving of the two."""
        for order in sorted(set(permutations("ooonnn"))):
            await self._interleave(desk, order, lost=lost)

    async def _interleave(self, desk: Desk, order: tuple[str, ...], *, lost: bool) -> None:
        task_id = new_task()
        holders: dict[str, TaskLog] = {}
        acknowledged: list[bytes] = []
        seen: list[bytes] | None = None

        async def step(who: str, number: int) -> None:
            nonlocal seen
            epoch = 1 if who == "o" else 2
            if number == 0:
                holders[who] = await opened(desk, epoch, task_id)
            elif who == "n" and number == 1:
                seen = [event[1] for event in await desk.log(task_id)]
            else:
                chunk = delta(f"{who}{number}", who)
                if lost:
                    desk.store.faults.append(Fault.REPLY_LOST)
                await holders[who].append(chunk)
                acknowledged.append(encode(chunk))

        done = {"o": 0, "n": 0}
        fenced = False
        for who in order:
            if who == "o" and fenced:
                continue
            try:
                await step(who, done[who])
            except TakenOver:
                assert (who, done["n"] > 0) == ("o", True), order
                fenced = True
            done[who] += 1
        data = [event[1] for event in await desk.log(task_id)]
        assert data == acknowledged, order
        if seen is not None and encode(delta("n2", "n")) in data:
            assert data[: data.index(encode(delta("n2", "n")))] == seen, f"{order}: the new holder missed an event"


def _memory(desk: Desk) -> MemoryLogStore:
    inner = desk.store.inner
    assert isinstance(inner, MemoryLogStore)
    return inner


async def test_opening_needs_the_store(memory_desk: Desk) -> None:
    class Away(MemoryLogStore):
        async def open(self, *_: object) -> None:  # type: ignore[override]
            raise LogUnavailable

    memory_desk.store.inner = Away(_memory(memory_desk)._hints)
    with pytest.raises(LogUnavailable):
        await memory_desk.writer.open(new_task(), Epoch(1), floor=BEGINNING)
