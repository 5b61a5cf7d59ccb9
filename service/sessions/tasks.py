"""Tasks as their owners see them."""

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from service.model.caller import EVERYONES, Own, Reach
from service.model.errors import DatabaseUnavailable, NotFound
from service.model.ids import OwnerId, SessionId, TaskId
from service.model.task import CancelRequested, Task, TaskFilter
from service.sessions.ports import Doorbell, TaskStore

REMEMBERED_SECONDS: Final = 30.0
"""So long a task's owner is not asked for again; a deleted session's logs can still be followed for so long."""

MAX_REMEMBERED: Final = 20_000
"""Of so many tasks the owner is remembered; beyond it the least recent one is asked for again."""


_Found = TypeVar("_Found")


class Tasks:
    """What a door can ask of tasks. What is outside of a caller's reach is NotFound, like what does not exist."""

    def __init__(self, store: TaskStore, doorbell: Doorbell, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._doorbell = doorbell
        self._monotonic = monotonic
        self._owners: OrderedDict[TaskId, tuple[OwnerId, float]] = OrderedDict()

    async def read(self, reach: Reach, task_id: TaskId) -> Task:
        """The task as it stands. Raises NotFound."""
        return _there(await self._store.read(reach, task_id))

    async def cancel(self, reach: Reach, task_id: TaskId) -> Task:
        """Have the task ended as cancelled, unless it has ended; workers are told. Answers the task as it stands.

        Its log says when it has ended: within seconds where its worker lives and reaches both stores; where it is dead,
        when its lease has lapsed. A repeat is harmless. Raises NotFound.
        """
        task = _there(await self._store.cancel(reach, task_id))
        if not task.has_ended:
            await self._doorbell.ring(CancelRequested(task_id))
        return task

    async def newest(self, reach: Reach, wanted: TaskFilter, limit: int, before: int | None) -> Sequence[Task]:
        """The newest tasks that are wanted, of those with a lower number than `before`; the newest first."""
        return await self._store.newest(reach, wanted, limit, before)

    async def of_session(self, reach: Reach, session_id: SessionId, limit: int, after: int) -> Sequence[Task]:
        """A session's tasks with a higher number than `after`, in their order. Raises NotFound."""
        tasks = await self._store.of_session(reach, session_id, limit, after)
        if tasks is None:
            raise NotFound
        return tasks

    async def check_reach(self, reach: Reach, task_id: TaskId) -> None:
        """Raises NotFound for a task that is outside; what is everyone's reach has no outside.

        An owner never changes, so one who was found to be it is remembered: who comes back to a log is no query, and
        where the database is away, what was last known counts. Of anybody else it is asked each time, whether there is
        such a task or not.
        """
        if reach == EVERYONES:
            return
        owner, asked_at = self._owners.get(task_id, (None, float("-inf")))
        is_known = owner is not None and reach == Own(owner)
        if is_known and self._monotonic() - asked_at < REMEMBERED_SECONDS:
            return
        try:
            found = _there(await self._store.ownership(task_id))
        except DatabaseUnavailable:
            if not is_known:
                raise
            return
        if reach != Own(found.owner):
            raise NotFound
        self._remember(task_id, found.owner)

    def _remember(self, task_id: TaskId, owner: OwnerId | None) -> None:
        self._owners.pop(task_id, None)
        if owner is not None:  # what is nobody's may be somebody's soon
            self._owners[task_id] = owner, self._monotonic()
        if len(self._owners) > MAX_REMEMBERED:
            self._owners.popitem(last=False)


def _there(found: _Found | None) -> _Found:
    if found is None:
        raise NotFound
    return found
