"""A whole log at once, folded: what a worker goes on from."""

from typing import Final

from service.model.encoding import decode
from service.model.fold import LogFold
from service.model.ids import TaskId
from service.model.position import BEGINNING, Position
from service.registry.ports import LogStore

REPLAY_EVENTS: Final = 256
"""Read at once."""


async def fold_log(store: LogStore, task_id: TaskId, until: Position) -> LogFold:
    """The fold of what is stored, up to `until`: where the log ended when it was opened.

    Raises LogUnavailable, BrokenLog, BrokenEvent. Of a log that is shorter by now, the fold of all that is left.
    """
    fold, after = LogFold(), BEGINNING
    while after.n < until.n:
        page = await store.read(task_id, after, REPLAY_EVENTS)
        for _, data in page.events:
            fold.apply(decode(data))
        if not page.events:
            break
        after = Position.stored(page.events[-1][0])
    return fold
