"""A closed log as the lines of a file, read as a stream reads it: hot, archived, or from one into the other."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import assert_never

from service.model.chain import Proof
from service.model.encoding import unframed
from service.model.errors import LogUnavailable, NotFound, PlayheadError
from service.model.export import ExportLines
from service.model.ids import TaskId
from service.model.position import BEGINNING
from service.registry.event_page import LogGone
from service.registry.follow import Begun, Ended, Follower, Frames, Gap, Vanished
from service.registry.ports import Seals, TaskDirectory


class LogStillOpen(PlayheadError):
    """The log is still written. It can be exported when its task has ended."""

    error_type = "log_open"


class Exporter:
    """Exports closed logs."""

    def __init__(self, follower: Follower, seals: Seals, directory: TaskDirectory) -> None:
        self._follower = follower
        self._seals = seals
        self._directory = directory

    async def seal_of(self, task_id: TaskId) -> Proof | None:
        """What was proven of the log when it was archived, if it is: its export is always the same from then on.

        Raises NotFound, LogStillOpen, DatabaseUnavailable.
        """
        facts = await self._directory.facts(task_id)
        if facts is None:
            raise NotFound
        if not facts.log_closed:
            raise LogStillOpen
        return await self._seals.seal_of(task_id)

    async def lines(self, task_id: TaskId, seal: Proof | None, *, redact: bool = False) -> AsyncGenerator[bytes]:
        """The export, some lines at a time. Who has the last line has all of it.

        Raises NotFound, LogGone, StoreUnavailable, in place of the first line or in mid-course.
        """
        export = ExportLines(task_id, seal, redact=redact)
        async with aclosing(self._follower.read(task_id, BEGINNING)) as items:
            async for item in items:
                match item:
                    case Begun():
                        if isinstance(item.end, Vanished):
                            raise LogGone
                        yield export.manifest() + (export.gap(item.gap.data) if item.gap else b"")
                    case Frames(frames):
                        yield b"".join([export.event(event) for event in unframed(frames)])
                    case Gap():
                        yield export.gap(item.data)
                    case Ended():
                        yield export.end()
                        return
                    case Vanished():
                        raise LogGone
                    case other:
                        assert_never(other)
        raise LogUnavailable  # it was closed, and its end was not to be had
