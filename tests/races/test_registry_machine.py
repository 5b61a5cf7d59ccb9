"""The registry as a whole, in whatever order things happen: against a model that is a list of events."""

import asyncio
from collections.abc import AsyncGenerator

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from service.model.encoding import encode
from service.model.errors import LogTailLost, TakenOver
from service.model.events import Finish, FinishMetadata, TextStart, Usage
from service.model.ids import Epoch, PartId, TaskId
from service.model.position import BEGINNING, Position
from service.registry.follow import Begun, Ended, Followed, Follower, Frames, Gap, _Reading
from service.registry.hub import Channel
from service.registry.task_log import TaskLog
from tests.races.world import HEARTBEAT_SECONDS, World

TASK = TaskId("the-task")
FINISH = Finish("stop", FinishMetadata(TASK, "succeeded", "", Usage(0, 0), "", ""))


class Connections:
    """One reader over all its connections: from a position on, cut and back again."""

    def __init__(self, world: World, after: Position) -> None:
        self.after = self.position = after
        self.got = b""
        self.gaps = 0
        self.ended = False
        self._world = world
        self.connect()

    def connect(self) -> None:
        self._task = self._world.loop.create_task(self._run(self._world.follower.follow(TASK, self.position)))

    async def _run(self, items: AsyncGenerator[Followed]) -> None:
        try:
            async for item in items:
                match item:
                    case Begun(gap, end):
                        self.gaps += gap is not None
                        self.ended = isinstance(end, Ended)
                    case Gap():
                        self.gaps += 1
                    case Frames(frames, last):
                        self.got += frames
                        self.position = last
                    case Ended():
                        self.ended = True
        finally:
            await items.aclose()

    def cut(self) -> None:
        self._task.cancel()
        self._world.loop.run(asyncio.wait([self._task]))

    def check_alive(self) -> None:
        if self._task.done() and not self._task.cancelled():
            error = self._task.exception()
            assert error is None, error


class RegistryMachine(RuleBasedStateMachine):
    """Holders come and go, stores fail and forget, hints are lost, readers are cut: each reader gets the log."""

    follower: type[Follower] = Follower

    @initialize(seed=st.integers(0, 2**32))
    def begin(self, seed: int) -> None:
        self.world = World(seed, self.follower)
        self.epoch = 0
        self.count = 0
        self.model: dict[Position, bytes] = {}
        """What was acknowledged, where it was said to stand: for good, unless the store forgets."""
        self.appends: list[asyncio.Task[None]] = []
        self.readers: list[Connections] = []
        self.old: list[TaskLog] = []
        self.disturbed = self.lossy = False
        self.holder = self._open()

    def _open(self) -> TaskLog:
        self.epoch += 1
        later = self.holder.last.ms if self.epoch > 1 else 0
        return self.world.loop.run(self.world.writer.open(TASK, Epoch(self.epoch), later_than_ms=later))

    async def _append(self, log: TaskLog, chunks: list[TextStart]) -> None:
        """What is acknowledged is in the model; what was under way when the holder changed may be in the log or not."""
        try:
            last = await log.append(*chunks)
        except (TakenOver, LogTailLost):
            return
        self.model[last] = encode(chunks[-1])

    @rule(count=st.integers(1, 4), seconds=st.floats(0, 0.03))
    def append(self, count: int, seconds: float) -> None:
        chunks = [TextStart(PartId(f"{self.epoch}.{self.count + i}")) for i in range(count)]
        self.count += count
        self.appends.append(self.world.loop.create_task(self._append(self.holder, chunks)))
        self.world.pass_time(seconds)

    @rule(seconds=st.floats(0, 0.03))
    def change_holder(self, seconds: float) -> None:
        self.old.append(self.holder)
        self.holder = self._open()
        self.world.pass_time(seconds)

    @precondition(lambda self: self.old)
    @rule()
    def old_holder_wakes_up(self) -> None:
        before = self.world.loop.run(self.world.store.head(TASK))
        log = self.old[-1]

        async def append() -> None:
            with pytest.raises((TakenOver, LogTailLost)):
                await log.append(TextStart(PartId("stale")))

        self.world.loop.run(append())
        after = self.world.loop.run(self.world.store.head(TASK))
        assert after.last.n >= before.last.n

    @rule(place=st.floats(0, 1), appends=st.integers(0, 2), seconds=st.sampled_from([0.0, 0.01, 0.03, 3.0]))
    def follow(self, place: float, appends: int, seconds: float) -> None:
        """A reader comes, often just as something is appended."""
        for _ in range(appends):
            self.append(1, 0)
        positions = [BEGINNING, *self.world.store._logs[TASK].positions]
        self.readers.append(Connections(self.world, positions[int(place * (len(positions) - 1))]))
        self.world.pass_time(seconds)

    @precondition(lambda self: self.readers)
    @rule(which=st.integers(0), seconds=st.floats(0, 0.03))
    def cut_and_come_back(self, which: int, seconds: float) -> None:
        reader = self.readers[which % len(self.readers)]
        reader.cut()
        self.world.pass_time(seconds)
        reader.connect()

    @rule(what=st.sampled_from(["hints", "connection", "replies", "tail"]), place=st.floats(0, 1))
    def disturb(self, what: str, place: float) -> None:
        """Hints get lost; the hub's connection breaks; requests and replies get lost; the store forgets its tail."""
        self.disturbed = True
        match what:
            case "hints":
                self.world.hints.lose_next += 1 + int(2 * place)
            case "connection":
                for feed in self.world.hints.feeds:
                    feed.interrupt()
            case "replies":
                self.world.store.failing = 0.3
            case "tail":
                self.world.store.lose(TASK, int(place * len(self.world.store._logs[TASK].positions)))
                self.lossy = True

    @rule()
    def settle(self) -> None:
        """When all has gone well every reader is up to date at once; after a disturbance, within a heartbeat."""
        self.world.store.failing = 0
        self.world.hints.lose_next = 0
        self.world.pass_time(HEARTBEAT_SECONDS + 5 if self.disturbed else 3)
        if self.disturbed:
            return self._heal()
        last = self.world.loop.run(self.world.store.head(TASK)).last
        for reader in self.readers:
            assert last in (reader.position, BEGINNING), "a reader is behind though no hint was lost"
        return None

    def _heal(self) -> None:
        """After a loss the next append finds out; a holder that cannot repair is followed by another one."""
        self.world.loop.run(self._append(self.holder, [TextStart(PartId(f"heal.{self.epoch}.{self.count}"))]))
        self.count += 1
        if self.holder._failure is not None:
            self.change_holder(0)
        self.disturbed = False
        self.world.pass_time(HEARTBEAT_SECONDS + 5)

    @invariant()
    def readers_live(self) -> None:
        for reader in getattr(self, "readers", []):
            reader.check_alive()

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        try:
            self._check_the_end()
        finally:
            for reader in self.readers:
                reader.cut()
            self.world.loop.run(asyncio.sleep(1))
            self.world.leave()

    def _check_the_end(self) -> None:
        self.disturbed = True
        self.settle()
        if self.holder._failure is not None:
            self.change_holder(0)
        self.world.loop.run(self.holder.append(FINISH))
        self.world.pass_time(2 * HEARTBEAT_SECONDS + 5)
        log = self.world.store._logs[TASK]
        assert [position.n for position in log.positions] == list(range(1, len(log.positions) + 1)), "dense numbers"
        assert log.positions == sorted(log.positions), "time never goes back"
        data = [event[1] for event in log.events]
        assert len(set(data)) == len(data), "an event is stored twice"
        assert b"stale" not in b"".join(data)
        if not self.lossy:
            stored = dict(zip(log.positions, data, strict=True))
            assert self.model.items() <= stored.items(), "acknowledged events are missing"
        frames = [b"id: %b\ndata: %b\n\n" % event for event in log.events]
        for reader in self.readers:
            assert reader.ended, "a reader did not reach the end"
            if not reader.gaps:
                start = 0 if reader.after == BEGINNING else log.positions.index(reader.after) + 1
                assert reader.got == b"".join(frames[start:]), "a reader without a gap got another log"
            else:
                assert self.lossy, "a gap was told though nothing was lost"
                assert reader.got.endswith(frames[-1])


SETTINGS = settings(
    max_examples=300,
    stateful_step_count=20,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)


@pytest.mark.timeout(120)
def test_every_reader_gets_the_log_whatever_happens() -> None:
    run_state_machine_as_test(RegistryMachine, settings=SETTINGS)


class ReadsThenSubscribes(Follower):
    """The planted bug: the store is read before anyone listens."""

    async def follow(self, task_id: TaskId, after: Position) -> AsyncGenerator[Followed]:
        reading = _Reading(self._pages, self._directory, Channel(task_id, -1), after, self._heartbeat_seconds)
        items = reading.items()
        yield await anext(items)
        async with self._hub.attach(task_id) as channel:
            reading._channel = channel
            reading._trusted = channel.generation
            async for item in items:
                yield item


@pytest.mark.timeout(120)
def test_pitfall_01_read_then_subscribe_would_be_caught() -> None:
    class Planted(RegistryMachine):
        follower = ReadsThenSubscribes

    with pytest.raises(AssertionError, match="behind though no hint was lost"):
        run_state_machine_as_test(Planted, settings=settings(SETTINGS, phases=[Phase.generate]))
