"""What can go wrong on the bench: each fault of a line on each link, and the death or sleep of each process."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Final

from tests.faults.bench import Bench, Member
from tests.faults.link import Link
from tests.faults.stores import Store
from tests.faults.wire import EVERY, Fault, Slices

SMALL: Final = Slices(16)
"""Where single bytes would stop everything: what the logs say goes over these links."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something that is wrong between `begin` and `end`."""

    name: str
    begin: Callable[[], Awaitable[None]]
    end: Callable[[], Awaitable[None]]


def on_links(*pairs: tuple[Link, Fault]) -> Trouble:
    """These faults on these links, at once."""
    paced = [(link, _bearable(link, fault)) for link, fault in pairs]

    async def begin() -> None:
        for link, fault in paced:
            link.break_by(fault)

    async def end() -> None:
        for link, _ in paced:
            link.heal()

    return Trouble(" and ".join(f"{link.name}: {fault}" for link, fault in paced), begin, end)


def _bearable(link: Link, fault: Fault) -> Fault:
    return SMALL if isinstance(fault, Slices) and not link.name.endswith("postgres") else fault


def in_company(bench: Bench) -> Iterator[Trouble]:
    """Each fault on each kind of link, six different ones at a time: each process has one link that is well."""
    (one, two), (first, second) = bench.workers, bench.doors
    links = (one.redis, two.postgres, first.postgres, second.redis)
    archiving = (bench.archiver.redis, bench.archiver.postgres)
    for number in range(len(EVERY)):
        faults = [EVERY[(number + shift) % len(EVERY)] for shift in (0, 2, 3, 5, 6, 1)]
        yield on_links(*zip((*links, bench.gates[number % 2], archiving[number % 2]), faults, strict=True))


def alone(bench: Bench) -> Iterator[Trouble]:
    """Everything, one at a time."""
    for member in bench.members:
        yield _dead(member)
        yield _asleep(member)
    for name, stores in (
        ("Valkey", [bench.stores.valkey]),
        ("PostgreSQL", [bench.stores.postgres]),
        ("both stores", [bench.stores.valkey, bench.stores.postgres]),
    ):
        yield _down(name, stores)
    for fault in EVERY:
        for link in bench.links:
            yield on_links((link, fault))


def _dead(member: Member) -> Trouble:
    return Trouble(f"{member.name} is killed", member.kill, member.start)


def _asleep(member: Member) -> Trouble:
    async def begin() -> None:
        member.pause()

    async def end() -> None:
        member.wake()

    return Trouble(f"{member.name} sleeps", begin, end)


def _down(name: str, stores: list[Store]) -> Trouble:
    async def begin() -> None:
        await asyncio.gather(*(store.kill() for store in stores))

    async def end() -> None:
        await asyncio.gather(*(store.start() for store in stores))

    return Trouble(f"{name} killed", begin, end)
