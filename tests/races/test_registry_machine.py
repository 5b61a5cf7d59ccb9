"""The registry as a whole, in whatever order things happen: against a model that is a list of events."""

import asyncio

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
from service.model.ids import Epoch, PartId
from service.model.position import BEGINNING, Position
from service.registry.follow import LOST_TAIL_PATIENCE_SECONDS, Follower
from service.registry.task_log import TaskLog
from tests.races.connections import TASK, Connections
from tests.races.planted import ReadsThenSubscribes
from tests.races.world import HEARTBEAT_SECONDS, SOON_SECONDS, World

SIZES = (0, 0, 0, 70_000, 110_000)
"""Of an event: many are tiny; a longer one does not travel with a hint, and two or three fill a page and a batch."""

PLACES = (0.0, 0.0, 0.5, 1.0)
"""Where in the log a reader begins: several often want the same."""

DISTURBANCES = (
    "hints are lost",
    "hints come again",
    "the hub's connection breaks",
    "the hub's connection breaks in silence",
    "appends fail",
    "readings fail",
    "readings take long",
    "the tail is lost",
)
FINISH = Finish("stop", FinishMetadata(TASK, "succeeded", "", Usage(0, 0), "", ""))


class RegistryMachine(RuleBasedStateMachine):
    """Holders come and go, stores fail and forget, hints are lost, readers are cut: each reader gets the log.

    A heartbeat repairs whatever was missed. So it is waited for only where hints alone were lost, in silence; in every
    other case each reader must be up to date SOON_SECONDS after the last disturbance.
    """

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
        self.is_deaf = self.is_forgetful = self.lossy = False
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

    @rule(count=st.integers(1, 4), size=st.sampled_from(SIZES), seconds=st.floats(0, 0.03))
    def append(self, count: int, size: int, seconds: float) -> None:
        self.appends.append(self.world.loop.create_task(self._append(self.holder, self._parts(count, size))))
        self.world.pass_time(seconds)

    def _parts(self, count: int, size: int) -> list[TextStart]:
        """Events that cannot be merged; long ones fill a hint, a batch or a page by a few."""
        self.count += count
        return [TextStart(PartId(f"{self.epoch}.{self.count - i}.{'x' * size}")) for i in range(count)]

    def _last(self) -> Position:
        return self.world.store._logs[TASK].last

    @rule(seconds=st.floats(0, 0.03))
    def change_holder(self, seconds: float) -> None:
        self.old.append(self.holder)
        self.holder = self._open()
        self.world.pass_time(seconds)

    @precondition(lambda self: self.old)
    @rule()
    def old_holder_wakes_up(self) -> None:
        before = self._last()
        log = self.old[-1]

        async def append() -> None:
            with pytest.raises((TakenOver, LogTailLost)):
                await log.append(TextStart(PartId("stale")))

        self.world.loop.run(append())
        assert self._last().n >= before.n

    @rule(
        place=st.sampled_from(PLACES),
        sizes=st.lists(st.sampled_from(SIZES), max_size=2),
        seconds=st.sampled_from([0.0, 0.01, 0.03, 3.0]),
    )
    def follow(self, place: float, sizes: list[int], seconds: float) -> None:
        """A reader comes, often just as something is appended."""
        for size in sizes:
            self.append(1, size, 0)
        positions = [BEGINNING, *self.world.store._logs[TASK].positions]
        self.readers.append(Connections(self.world, self.world, positions[int(place * (len(positions) - 1))]))
        self.world.pass_time(seconds)

    @precondition(lambda self: self.readers)
    @rule(which=st.integers(0), seconds=st.floats(0, 0.03))
    def cut_and_come_back(self, which: int, seconds: float) -> None:
        reader = self.readers[which % len(self.readers)]
        reader.cut()
        self.world.pass_time(seconds)
        reader.connect(self.world)

    @rule(what=st.sampled_from(DISTURBANCES), place=st.floats(0, 1))
    def disturb(self, what: str, place: float) -> None:
        """Until all settles; what is lost is lost for good."""
        store, hints = self.world.store, self.world.hints
        match what:
            case "hints are lost":
                hints.lose_next += 1 + int(2 * place)
                self.is_deaf = True
            case "hints come again":
                hints.echoing = True
            case "the hub's connection breaks" | "the hub's connection breaks in silence":
                for feed in hints.feeds:
                    feed.interrupt(said=not what.endswith("in silence"))
                self.append(1, 0, 0.05 * place)
            case "appends fail":
                store.failing_appends = 0.3
            case "readings fail":
                store.failing_reads = 0.3
            case "readings take long":
                store.reply_seconds = 0.5 * place
            case "the tail is lost":
                store.lose(TASK, int(place * len(store._logs[TASK].positions)))
                self.is_forgetful = self.lossy = True
            case _:
                raise AssertionError(what)

    @rule()
    def settle(self) -> None:
        """Once nothing disturbs any more, every reader is soon up to date."""
        self.world.calm()
        self.world.pass_time(HEARTBEAT_SECONDS + SOON_SECONDS if self.is_deaf else SOON_SECONDS)
        if self.is_forgetful:
            self._find_out()
        self.is_deaf = self.is_forgetful = False
        last = self._last()
        for reader in self.readers:
            assert last in (reader.position, BEGINNING), "a reader is behind though it could know better"

    def _find_out(self) -> None:
        """After a loss the next append finds out; a holder that cannot repair is followed by another one."""
        self.world.loop.run(self._append(self.holder, self._parts(1, 0)))
        if self.holder._failure is not None:
            self.change_holder(0)
            self.world.loop.run(self._append(self.holder, self._parts(1, 0)))
        self.world.pass_time(LOST_TAIL_PATIENCE_SECONDS + SOON_SECONDS)

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
        self.settle()
        if self.holder._failure is not None:
            self.change_holder(0)
        rng = self.world.loop.random
        self.world.loop.run(self.holder.append(*self._parts(rng.randrange(5), rng.choice(SIZES)), FINISH))
        self.world.pass_time(SOON_SECONDS)
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
    max_examples=200,
    stateful_step_count=20,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)


@pytest.mark.timeout(120)
def test_every_reader_gets_the_log_whatever_happens() -> None:
    run_state_machine_as_test(RegistryMachine, settings=SETTINGS)


@pytest.mark.timeout(120)
def test_pitfall_01_read_then_subscribe_would_be_caught() -> None:
    class Planted(RegistryMachine):
        follower = ReadsThenSubscribes

    with pytest.raises(AssertionError, match="behind though it could know better"):
        run_state_machine_as_test(Planted, settings=settings(SETTINGS, phases=[Phase.generate]))
