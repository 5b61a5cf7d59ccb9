"""A whole log at once, folded: what a worker goes on from."""

from typing import Final

from service.model.encoding import decode
from service.model.fold import LogFold
from service.model.ids import TaskId
from service.model.position import BEGINNING, Position
from service.registry.ports import LogStore

REPLAY_EVENTS: Final = 256
"""Read at once."""


async def fold_log(store: LogStore, task_id: TaskId) -> LogFold:
    """The fold of everything that is stored now. Raises LogUnavailable, BrokenLog, BrokenEvent."""
    fold, after = LogFold(), BEGINNING
    while True:
        page = await store.read(task_id, after, REPLAY_EVENTS)
        for _, data in page.events:
            fold.apply(decode(data))
        if not page.events:
            return fold
        after = Position.stored(page.events[-1][0])
