"""What the database knows of a task's log, asked once for many readers."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from service.model.ids import TaskId
from service.model.log import TaskFacts
from service.registry.flights import Flights
from service.registry.ports import TaskDirectory

KNOWN_SECONDS: Final = 1.0
"""So old an answer may be. A task that is not known is asked for each time: it may just have been made."""

KNOWN_TASKS: Final = 10_000
"""Of so many tasks the answer is kept; the oldest ones go first."""


class KnownFacts:
    """The port `TaskDirectory` over another one, which is spared a crowd that comes back all at once."""

    def __init__(self, directory: TaskDirectory, clock: Callable[[], float]) -> None:
        self._directory = directory
        self._clock = clock
        self._flights: Flights[TaskId, TaskFacts | None] = Flights()
        self._known: OrderedDict[TaskId, tuple[float, TaskFacts]] = OrderedDict()

    async def facts(self, task_id: TaskId) -> TaskFacts | None:
        """As they were at most KNOWN_SECONDS ago. Raises DatabaseUnavailable."""
        asked_at, facts = self._known.get(task_id, (0.0, None))
        if facts is not None and self._clock() - asked_at < KNOWN_SECONDS:
            return facts
        return await self._flights.share(task_id, lambda: self._ask(task_id))

    async def _ask(self, task_id: TaskId) -> TaskFacts | None:
        asked_at = self._clock()
        facts = await self._directory.facts(task_id)
        self._known.pop(task_id, None)
        if facts is not None:
            self._known[task_id] = (asked_at, facts)
            if len(self._known) > KNOWN_TASKS:
                self._known.popitem(last=False)
        return facts
