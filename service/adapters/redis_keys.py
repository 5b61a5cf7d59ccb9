"""The names of all keys and channels. The braces put what belongs to one task on one node."""

import re
from typing import Final

from service.model.ids import TaskId

READY_CHANNEL: Final = "playhead:ready"
"""Rung when a task is due."""

CANCEL_CHANNEL: Final = "playhead:cancel"
"""Rung with the id of a task that its owner wants cancelled."""

DATABASE_KEY: Final = "playhead:database"
"""Which database the tasks of these logs are in."""

PULSE_CHANNEL: Final = "playhead:pulse"
"""Nobody publishes here: it keeps a connection that follows no task in subscribed mode, where it can be probed."""

ANY_LOG_KEY: Final = "playhead:{*}:*"
"""What all keys of logs look like, and maybe others."""

_OWNED: Final = re.compile(
    rb"playhead:\{([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})\}:(?:log|meta)", re.ASCII
)
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


def owner_of(key: bytes) -> TaskId | None:
    """The task whose log, or what is known of it, this key holds; None for any other key."""
    form = _OWNED.fullmatch(key)
    return None if form is None else TaskId(form[1].decode())
