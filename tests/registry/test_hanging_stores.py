"""A reader that has begun gets its heartbeats on time, whatever the stores do; in virtual time."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import aclosing
from typing import Any, Final, TypeVar

import pytest

from service.model.errors import DatabaseUnavailable, LogUnavailable, StoreUnavailable
from service.model.events import TextDelta
from service.model.ids import PartId, TaskId
from service.model.log import MAX_HINTED_BYTES, TaskFacts
from service.model.position import BEGINNING
from service.registry.follow import LOST_TAIL_PATIENCE_SECONDS, Ended, Followed, Frames, Heartbeat, Vanished
from service.registry.pages import FIRST_PAGE_EVENTS
from tests.contracts.archives import task_made_at
from tests.races.loop import ShuffledLoop
from tests.registry.readers import HEARTBEAT_SECONDS, Library, Reader, library
from tests.registry.test_follow import FINISH, parts

_Result = TypeVar("_Result")

LATEST_SECONDS: Final = HEARTBEAT_SECONDS * 9 / 8 + 0.001
"""A heartbeat may be late by a tick of the hub."""

HOT, ARCHIVE, DATABASE = ("hot read", "hot head"), ("archive read", "archive head"), ("facts",)


class Trouble:
    """What becomes of the calls of a library's stores."""

    def __init__(self, house: Library) -> None:
        self.hanging: str | None = None
        """This one is answered by `hang`; all others as ever."""
        self.hang: Callable[[], Awaitable[None]] = self.for_ever
        self.hung = asyncio.Event()
        self.let_go: Callable[[], None] = lambda: None
        for name, store, verb in (
            ("hot read", house.store, "read"),
            ("hot head", house.store, "head"),
            ("archive read", house.archive, "read"),
            ("archive head", house.archive, "head"),
            ("facts", house.directory, "facts"),
        ):
            setattr(store, verb, self._around(name, getattr(store, verb)))

    def _around(self, name: str, call: Callable[..., Awaitable[_Result]]) -> Callable[..., Awaitable[_Result]]:
        async def around(*arguments: object) -> _Result:
            if self.hanging == name:
                self.hung.set()
                await self.hang()
            return await call(*arguments)

        return around

    async def for_ever(self) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            self.let_go()

    def until_a_deadline(self, away: StoreUnavailable, seconds: float, until: float) -> Callable[[], Awaitable[None]]:
        """Calls fail after so long; those after a moment are answered."""

        async def hang() -> None:
            if asyncio.get_running_loop().time() < until:
                await asyncio.sleep(seconds)
                raise away

        return hang


def run(scene: Callable[[Library, Trouble], Coroutine[Any, Any, None]], seed: int = 0) -> None:
    """A scene in virtual time, which leaves no task behind."""
    loop = ShuffledLoop(seed)

    async def played() -> None:
        async with library() as house:
            await scene(house, Trouble(house))

    try:
        loop.run(asyncio.wait_for(played(), 1000))
        assert not asyncio.all_tasks(loop)
    finally:
        loop.close()


@pytest.mark.parametrize("seconds", [0.0, 5.0, 60.0])
@pytest.mark.parametrize("name", [*HOT, *ARCHIVE, *DATABASE])
def test_a_reader_gets_its_heartbeats_on_time_while_a_store_hangs_and_all_that_it_missed_when_it_is_back(
    name: str, seconds: float
) -> None:
    """It stands at the end of a log that is written on, archived and gone from the hot store: it must ask them all."""

    async def scene(house: Library, trouble: Trouble) -> None:
        loop = asyncio.get_running_loop()
        log = await house.open(task_made_at(int(loop.time() * 1000)))
        await log.append(*parts(3))
        async with aclosing(house.follower.follow(log.task_id, BEGINNING)) as items:
            await anext(items)
            got = _bytes(await anext(items))
            house.hints.swallow = lambda _: True
            await log.append(*parts(2 * FIRST_PAGE_EVENTS), FINISH)
            whole = await house.log(log.task_id)
            house.archive.know(log.task_id)
            await house.archivist.archive_some()
            house.store.forget(log.task_id)
            if name == "archive head":  # it is asked only about what is gone from everywhere
                await _forget_everywhere(house, log.task_id)
            back_at = loop.time() + 130
            away = LogUnavailable() if name in HOT else DatabaseUnavailable()
            trouble.hanging, trouble.hang = name, trouble.until_a_deadline(away, seconds, back_at)
            longest, beats, last_at = 0.0, 0, loop.time()
            async for item in items:
                longest, last_at = max(longest, loop.time() - last_at), loop.time()
                beats += isinstance(item, Heartbeat)
                got += _bytes(item)
        assert longest <= LATEST_SECONDS
        assert beats * LATEST_SECONDS >= 130
        assert loop.time() <= back_at + seconds + LOST_TAIL_PATIENCE_SECONDS + 1
        if name == "archive head":
            assert isinstance(item, Vanished)
        else:
            assert (isinstance(item, Ended), got) == (True, whole)

    run(scene)


def test_a_reader_of_a_store_that_takes_longer_than_a_heartbeat_gets_on() -> None:
    async def scene(house: Library, trouble: Trouble) -> None:
        log = await house.open(TaskId("t"))
        await log.append(*parts(2 * FIRST_PAGE_EVENTS), FINISH)
        trouble.hanging, trouble.hang = "hot read", lambda: asyncio.sleep(3 * HEARTBEAT_SECONDS)
        reader = Reader(house.follower, log.task_id)
        await reader.until_ended()
        assert reader.got == await house.log(log.task_id)
        assert sum(isinstance(item, Heartbeat) for item in reader.items) >= 2

    run(scene)


def _bytes(item: Followed) -> bytes:
    return item.frames if isinstance(item, Frames) else b""


async def _forget_everywhere(house: Library, task_id: TaskId) -> None:
    house.archive.tasks.clear()

    async def facts(_: TaskId) -> TaskFacts:
        return TaskFacts(log_closed=True, log_archived=True)

    house.directory.facts = facts  # type: ignore[method-assign]


def test_a_reader_that_waits_for_a_lost_tail_gets_its_heartbeats_on_time() -> None:
    async def scene(house: Library, trouble: Trouble) -> None:
        loop = asyncio.get_running_loop()
        log = await house.open(TaskId("t"))
        await log.append(*parts(6))
        async with aclosing(house.follower.follow(log.task_id, BEGINNING)) as items:
            await anext(items)
            await anext(items)
            house.store.lose(log.task_id, 2)
            last_at = loop.time()
            async for item in items:
                assert loop.time() - last_at <= LATEST_SECONDS
                last_at = loop.time()
                if not isinstance(item, Heartbeat):
                    break
        assert loop.time() > LOST_TAIL_PATIENCE_SECONDS

    run(scene)


@pytest.mark.parametrize("leaves", ["is cut", "closes"])
@pytest.mark.parametrize("seed", range(3))
def test_who_leaves_while_a_store_hangs_leaves_nothing_behind(seed: int, leaves: str) -> None:
    """What it asked is given up first, and only then is its log listened to no more."""

    async def scene(house: Library, trouble: Trouble) -> None:
        log = await house.open(TaskId("t"))
        await log.append(*parts(1))
        subscribed = []
        trouble.hanging, trouble.let_go = "hot head", lambda: subscribed.append(log.task_id in house.hub._channels)
        if leaves == "is cut":
            reader = Reader(house.follower, log.task_id)
            await trouble.hung.wait()
            await reader.leave()
        else:
            async with aclosing(house.follower.follow(log.task_id, BEGINNING)) as items:
                async for item in items:
                    if trouble.hung.is_set() and isinstance(item, Heartbeat):
                        break
        assert subscribed == [True]
        assert house.hub._channels == {}

    run(scene, seed)


def counted() -> Callable[[], int]:
    """How many tasks readers have made from here on."""
    tasks: list[asyncio.Task[Any]] = []

    def made(loop: asyncio.AbstractEventLoop, coroutine: Any, **named: Any) -> asyncio.Task[Any]:
        tasks.append(asyncio.Task(coroutine, loop=loop, **named))
        return tasks[-1]

    asyncio.get_running_loop().set_task_factory(made)
    return lambda: sum(task.get_name() == "reading" for task in tasks)


def test_what_is_heard_or_read_costs_no_task() -> None:
    async def scene(house: Library, trouble: Trouble) -> None:
        log = await house.open(TaskId("t"))
        reader = Reader(house.follower, log.task_id)
        await reader.reached(await log.append(*parts(1)))
        readings = counted()
        for i in range(50):
            await reader.reached(await log.append(*parts(2, f"{i}-")))
        assert readings() == 0
        await reader.reached(await log.append(TextDelta(PartId("p"), "x" * MAX_HINTED_BYTES)))
        assert readings() == 0, "a page is waited for"
        await asyncio.sleep(HEARTBEAT_SECONDS * 3 / 2)
        assert readings() == 1, "a heartbeat is a time to make sure"
        await reader.leave()

    run(scene)


def test_pages_that_are_at_hand_cost_no_task() -> None:
    async def scene(house: Library, trouble: Trouble) -> None:
        log = await house.open(TaskId("t"))
        await log.append(*parts(5 * FIRST_PAGE_EVENTS, "x" * 1900), FINISH)
        await Reader(house.follower, log.task_id).until_ended()
        readings = counted()
        reader = Reader(house.follower, log.task_id)
        await reader.until_ended()
        assert sum(isinstance(item, Frames) for item in reader.items) > 5
        assert readings() == 0
        assert reader.got == await house.log(log.task_id)

    run(scene)
