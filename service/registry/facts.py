"""What the database knows of a task's log, asked once for all readers that want it at the same time."""

from service.model.ids import TaskId
from service.model.log import TaskFacts
from service.registry.flights import Flights
from service.registry.ports import TaskDirectory


class SharedFacts:
    """The port `TaskDirectory` over another one, which is spared a crowd that comes back all at once.

    Nothing is kept: what is not closed now may be in a moment.
    """

    def __init__(self, directory: TaskDirectory) -> None:
        self._directory = directory
        self._flights: Flights[TaskId, TaskFacts | None] = Flights()

    async def facts(self, task_id: TaskId) -> TaskFacts | None:
        """As they are, or were when somebody else began to ask. Raises DatabaseUnavailable."""
        return await self._flights.share(task_id, lambda: self._directory.facts(task_id))
