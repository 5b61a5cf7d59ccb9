"""A session: a conversation, its messages and who they are from."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from service.model.fold import Part
from service.model.ids import MessageId, SessionId, TaskId

MAX_MESSAGE_BYTES: Final = 128 * 1024
"""The text of one posted message, in UTF-8."""

MAX_MESSAGE_JSON_BYTES: Final = 192 * 1024
"""The same text as JSON, where a control character takes six bytes: it must fit an event with what stands around it."""

PAGE_MESSAGES: Final = 100
"""So many messages of a conversation are read at once, at most."""

PAGE_BYTES: Final = 1024 * 1024
"""And so much of their parts, as JSON; a message that is longer comes alone."""

HISTORY_BYTES: Final = 4 * 1024 * 1024
"""How much of a conversation an agent is given, as JSON: its newest messages."""

Role = Literal["user", "assistant"]


@dataclass(frozen=True, slots=True)
class Message:
    """One accepted entry of a conversation. `task_id` is the turn that it started or that wrote it."""

    id: MessageId
    role: Role
    parts: tuple[Part, ...]
    task_id: TaskId
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Session:
    """A conversation with a page of its messages in their order."""

    id: SessionId
    created_at: datetime
    messages: tuple[Message, ...]
    busy: bool
    """Whether a turn is queued or running."""
    earlier: bool
    """Whether there are messages before these."""


@dataclass(frozen=True, slots=True)
class Posted:
    """A message was accepted and a turn is queued for it."""

    task_id: TaskId
    message_id: MessageId
