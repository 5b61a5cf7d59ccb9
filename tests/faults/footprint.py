"""What a process costs: its memory, descriptors and threads, as the kernel knows them."""

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.faults.bench import Member
from tests.faults.patience import until

MORE_BYTES: Final = 48 * 1024 * 1024
"""What a process may have grown by: the pages and tails that it keeps, and what an allocator does not give back."""

CLOSING_SECONDS: Final = 5.0

MOST_REDIS: Final = 64
MOST_POSTGRES: Final = 16
"""Connections: what the pools of one process may hold; two of 32 to Redis, one for who subscribes and rings."""


@dataclass(frozen=True, slots=True)
class Footprint:
    """At one moment."""

    resident_bytes: int
    threads: int
    redis: int
    """Connections to it."""
    postgres: int
    broken: int
    """Connections that were reset: what has them in a pool sees it when it takes them up again."""
    others: int
    """Descriptors of anything else."""


def footprint(member: Member) -> Footprint:
    """Of this process, now."""
    status = Path(f"/proc/{member.pid}/status").read_text()
    descriptors = _descriptors(member.pid)
    redis, postgres = descriptors.count(member.redis.port), descriptors.count(member.postgres.port)
    broken = descriptors.count("broken")
    others = len(descriptors) - redis - postgres - broken
    return Footprint(_number("VmRSS", status) * 1024, _number("Threads", status), redis, postgres, broken, others)


def peak_bytes(pid: int) -> int:
    """The most memory that it had since `forget_peak`."""
    return _number("VmHWM", Path(f"/proc/{pid}/status").read_text()) * 1024


def spent_seconds(pid: int) -> float:
    """The processor's time that it has had, in steps of a hundredth of a second."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def forget_peak(pid: int) -> None:
    """Its peak is counted from here on."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


async def i9_it_is_back(member: Member, before: Footprint) -> None:
    """Nothing has stayed that only a fault needed. What is being closed has a moment for it."""

    async def is_closed() -> bool:
        return footprint(member).others <= before.others

    with suppress(TimeoutError):  # what is too much is told below
        await until(is_closed, CLOSING_SECONDS)
    after = footprint(member)
    said = f"I9: {member.name} had {before} and has {after}"
    assert after.resident_bytes <= before.resident_bytes + MORE_BYTES, said
    assert after.redis <= MOST_REDIS, said
    assert after.postgres <= MOST_POSTGRES, said
    assert after.redis + after.postgres + after.broken <= MOST_REDIS + MOST_POSTGRES + before.broken, said
    assert after.others <= before.others, said
    assert after.threads <= before.threads, said


def _descriptors(pid: int) -> list[int | str]:
    """What each one is, by the kernel's own word: of a connection over IPv4 the port at its other end."""
    ports = {row[9]: int(row[2].partition(":")[2], 16) for row in _sockets(pid, "tcp")}
    alive = {row[9] for name in ("tcp6", "udp", "udp6") for row in _sockets(pid, name)}
    alive |= {row[6] for row in _sockets(pid, "unix")}
    found: list[int | str] = []
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed since
            kind, _, number = str(descriptor.readlink()).partition(":")
            inode = number.strip("[]")
            found.append(ports.get(inode, "broken" if kind == "socket" and inode not in alive else kind))
    return found


def _sockets(pid: int, kind: str) -> list[list[str]]:
    return [line.split() for line in Path(f"/proc/{pid}/net/{kind}").read_text().splitlines()[1:]]


def _number(name: str, status: str) -> int:
    match = re.search(rf"^{name}:\s+(\d+)", status, re.MULTILINE)
    assert match is not None
    return int(match[1])
