"""The names of all keys and channels. The braces put what belongs to one task on one node."""

from typing import Final

from service.model.ids import TaskId

READY_CHANNEL: Final = "playhead:ready"
"""Rung when a task is due."""

PULSE_CHANNEL: Final = "playhead:pulse"
"""Nobody publishes here: it keeps a connection that follows no task in subscribed mode, where it can be probed."""

_LIVE: Final = ("playhead:{", "}:live")


def log_key(task_id: TaskId) -> str:
    """The stream of events."""
    return f"playhead:{{{task_id}}}:log"


def meta_key(task_id: TaskId) -> str:
    """The hash of what is known of the stream: epoch, n, ms, closed."""
    return f"playhead:{{{task_id}}}:meta"


def live_channel(task_id: TaskId) -> str:
    """Where each batch is hinted at."""
    return f"playhead:{{{task_id}}}:live"


def task_of(channel: str) -> TaskId:
    """The task whose live channel this is."""
    return TaskId(channel.removeprefix(_LIVE[0]).removesuffix(_LIVE[1]))
