"""Names of things. All are ASCII, at most 128 characters, and opaque to everyone but the store that minted them."""

import re
from typing import Final, NewType

from service.model.errors import NotFound

_ID: Final = re.compile(r"[!-~]{1,128}", re.ASCII)
_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)

TaskId = NewType("TaskId", str)
"""A UUIDv7 in its usual hexadecimal form, minted from the database's clock."""

SessionId = NewType("SessionId", str)
OwnerId = NewType("OwnerId", str)
"""Who sessions belong to: the subject of a token, or what a key was made for. Any text of 1 to 255 characters."""

OperationId = NewType("OperationId", str)
"""A UUIDv7 in its usual hexadecimal form, minted from the database's clock."""

MessageId = NewType("MessageId", str)
PartId = NewType("PartId", str)
"""A text or reasoning part within one log; the same part has the same id again after a reset."""

Epoch = NewType("Epoch", int)
"""The number of a task's holder. Each new holder has a higher one; the first has 1."""


def parse_task_id(text: str) -> TaskId:
    """Read what somebody took for a task's id. Raises NotFound for what no task can be called."""
    if not _UUID.fullmatch(text):
        raise NotFound
    return TaskId(text)


def parse_session_id(text: str) -> SessionId:
    """Read what somebody took for a session's id. Raises NotFound for what no session can be called."""
    if not _ID.fullmatch(text):
        raise NotFound
    return SessionId(text)


def parse_operation_id(text: str) -> OperationId:
    """Read what somebody took for an operation's id. Raises NotFound for what no operation can be called."""
    if not _UUID.fullmatch(text):
        raise NotFound
    return OperationId(text)
