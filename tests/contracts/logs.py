"""Making logs by hand: batches, task ids, and every store that the port's suite runs over."""

import uuid
from collections.abc import Sequence

from service.model.encoding import encode, frames
from service.model.events import TextDelta
from service.model.ids import Epoch, PartId, TaskId
from service.model.log import Batch, StoredEvent
from service.model.position import BEGINNING, Position


def new_task() -> TaskId:
    """A task that no other test knows."""
    return TaskId(str(uuid.uuid4()))


def event(ms: int, n: int, text: str = "x") -> StoredEvent:
    """An event at a position."""
    return str(Position(ms, n)).encode(), encode(TextDelta(PartId("p"), text))


def batch(
    task_id: TaskId,
    epoch: int,
    numbers: Sequence[int],
    *,
    ms: int = 1000,
    before: Position | None = None,
    terminal: bool = False,
    text: str = "x",
) -> Batch:
    """A batch of the events with these numbers, all of one time; it joins what was made in the same way."""
    events = [event(ms, n, f"{text}{n}") for n in numbers]
    first, last = numbers[0], numbers[-1]
    joins = before if before is not None else (Position(ms, first - 1) if first > 1 else BEGINNING)
    return Batch(task_id, Epoch(epoch), joins, Position(ms, last), frames(events), terminal)
