"""What a reader must find out although no heartbeat ever comes to its help, in whatever order things happen."""

import asyncio
from collections.abc import Iterator

import pytest

from service.adapters.memory_log import MemoryHints
from service.model.events import TextStart
from service.model.ids import Epoch, PartId, TaskId
from service.model.log import MAX_HINTED_BYTES, Hint, Page
from service.model.position import BEGINNING, Position
from service.registry.follow import LOST_TAIL_PATIENCE_SECONDS
from service.registry.task_log import TaskLog
from tests.contracts.logs import batch
from tests.races.connections import TASK, Connections
from tests.races.world import SOON_SECONDS, World

NEVER_SECONDS = 1_000_000.0


@pytest.fixture(params=range(10))
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    made = World(request.param, heartbeat_seconds=NEVER_SECONDS)
    yield made
    made.leave()


class Scene:
    """One log, its holder and its readers."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.readers: list[Connections] = []

    def open(self, epoch: int) -> TaskLog:
        return self.world.loop.run(self.world.writer.open(TASK, Epoch(epoch)))

    def append(self, log: TaskLog, name: str, size: int = 0) -> Position:
        return self.world.loop.run(log.append(TextStart(PartId(name + "x" * size))))

    def append_as_it_is(self, epoch: int, *numbers: int, text: str = "x") -> None:
        """Past the writer, all at one moment."""
        self.world.loop.run(self.world.store.append([batch(TASK, epoch, numbers, text=text)]))

    def follow(self) -> Connections:
        self.readers.append(Connections(self.world, self.world, BEGINNING))
        return self.readers[-1]

    def soon(self, seconds: float = SOON_SECONDS) -> None:
        self.world.pass_time(seconds)
        for reader in self.readers:
            reader.check_alive()


@pytest.fixture
def scene(world: World) -> Iterator[Scene]:
    made = Scene(world)
    yield made
    for reader in made.readers:
        reader.cut()


def test_pitfall_11_a_hole_between_two_hints_that_come_at_once_is_seen(scene: Scene) -> None:
    scene.open(1)
    reader = scene.follow()
    scene.append_as_it_is(1, 1)
    scene.soon()
    scene.world.hints.lose_next = 3
    batches = [batch(TASK, 1, [n]) for n in (2, 3, 4)]
    scene.world.loop.run(scene.world.store.append(batches))
    for one in (batches[0], batches[2]):
        MemoryHints.publish(scene.world.hints, Hint(TASK, Epoch(1), one.before, one.last, False, one.frames))
    scene.soon()
    assert reader.got.count(b"id: ") == 4


@pytest.mark.parametrize("said", [True, False], ids=["said", "in silence"])
def test_pitfall_77_a_confirmation_that_comes_again_may_be_a_lost_hint(scene: Scene, said: bool) -> None:
    log, reader = scene.open(1), scene.follow()
    first = scene.append(log, "heard")
    scene.soon()
    scene.world.hints.lose_next = 1
    last = scene.append(log, "not heard")
    scene.soon()
    assert reader.position == first
    (feed,) = scene.world.hints.feeds
    feed.interrupt(said=said)
    scene.soon()
    assert reader.position == last


def test_a_page_from_before_a_doubt_is_not_trusted_after_it(scene: Scene) -> None:
    """Its answer is still on its way when a hint without frames is heard, and says nothing of that hint's events."""
    log = scene.open(1)
    scene.append(log, "first")
    answers = HeldAnswers(scene.world)
    reader = scene.follow()
    scene.soon()
    last = scene.append(log, "long", MAX_HINTED_BYTES)
    scene.soon()
    answers.release()
    scene.soon()
    assert reader.position == last


def test_a_reader_does_not_share_a_page_from_before_its_subscription(scene: Scene) -> None:
    log = scene.open(1)
    scene.append(log, "first")
    answers = HeldAnswers(scene.world)
    early = scene.follow()
    scene.soon()
    last = scene.append(log, "long", MAX_HINTED_BYTES)
    scene.soon()
    late = scene.follow()
    scene.soon()
    assert late.position == last
    answers.release()
    scene.soon()
    assert early.position == last


def test_pitfall_65_what_a_fenced_holder_says_late_is_not_shown(scene: Scene) -> None:
    reader = scene.follow()
    scene.append(scene.open(1), "first")
    last = scene.append(scene.open(2), "second")
    scene.soon()
    stale = batch(TASK, 1, [last.n + 1], before=last, ms=last.ms)
    MemoryHints.publish(scene.world.hints, Hint(TASK, Epoch(1), last, stale.last, False, stale.frames))
    scene.soon()
    assert reader.position == last


def test_pitfall_65_another_holder_casts_doubt_also_where_its_batch_joins(scene: Scene) -> None:
    """It joins the chain, but not a reader that is ahead of the chain by events which are lost."""
    scene.open(1)
    scene.follow()
    scene.soon()
    scene.append_as_it_is(1, 1, 2, 3)
    scene.soon()
    scene.world.hints.lose_next = 1
    scene.append_as_it_is(1, 4, 5)
    ahead = scene.follow()
    scene.soon()
    assert ahead.position == Position(1000, 5)
    scene.world.store.lose(TASK, 3)
    scene.open(2)
    scene.append_as_it_is(2, 4, text="other")
    scene.soon(LOST_TAIL_PATIENCE_SECONDS + SOON_SECONDS)
    assert (ahead.gaps, ahead.position) == (1, Position(1000, 4))


class HeldAnswers:
    """The first reading from here on is answered when it is released, as the log was when it was asked."""

    def __init__(self, world: World) -> None:
        self._read = world.store.read
        self._is_first = True
        self._released = asyncio.Event()
        world.store.read = self.read  # type: ignore[method-assign]

    async def read(self, task_id: TaskId, after: Position, count: int) -> Page:
        is_held, self._is_first = self._is_first, False
        page = await self._read(task_id, after, count)
        if is_held:
            await self._released.wait()
        return page

    def release(self) -> None:
        self._released.set()
