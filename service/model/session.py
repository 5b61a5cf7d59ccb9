"""A session: a conversation, its messages and who they are from."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from service.model.events import InputPart
from service.model.fold import Part
from service.model.ids import MessageId, OwnerId, SessionId, TaskId

MAX_MESSAGE_BYTES: Final = 128 * 1024
"""The text of one posted message, in UTF-8."""

MAX_MESSAGE_JSON_BYTES: Final = 192 * 1024
"""The same text as JSON, where a control character takes six bytes: it must fit an event with what stands around it."""

MAILBOX_MESSAGES: Final = 20
"""So many messages may wait in a session's mailbox."""

KEY_SECONDS: Final = 24 * 3600
"""So long an idempotency key is remembered."""

PAGE_MESSAGES: Final = 100
"""So many messages of a conversation are read at once, at most."""

PAGE_BYTES: Final = 1024 * 1024
"""And so much of their parts, as JSON; a message that is longer comes alone."""

HISTORY_BYTES: Final = 4 * 1024 * 1024
"""How much of a conversation an agent is given, as JSON: its newest messages."""

MAX_TITLE_CHARACTERS: Final = 200
MAX_MODEL_CHARACTERS: Final = 200
MAX_SYSTEM_PROMPT_BYTES: Final = 64 * 1024
MAX_ITERATIONS: Final = 1000
MAX_GRANTED_TOOLS: Final = 256
MAX_SECONDS: Final = 24 * 3600
"""What a session may be set to."""

Role = Literal["user", "assistant"]
SettingName = Literal["title", "model", "system_prompt", "max_iterations", "max_seconds", "tools"]


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """How a session's turns are run; what is None is as the service has it."""

    title: str | None = None
    model: str | None = None
    """The model's name at the service's endpoint."""
    system_prompt: str | None = None
    max_iterations: int | None = None
    """Of one turn: how many of its steps may ask for tools; then one more is made without."""
    max_seconds: float | None = None
    """Of one turn: how long it may run."""
    tools: tuple[str, ...] | None = None
    """The tools that it grants, by their names, beside those that are always granted; without it all that there are."""


UNSET: Final = SessionSettings()


@dataclass(frozen=True, slots=True)
class SessionChange:
    """What is to be different: what is set is taken, what is named in `cleared` is unset, all else stays.

    An owner is given once, to a session that has none.
    """

    settings: SessionSettings = UNSET
    cleared: frozenset[SettingName] = frozenset()
    owner: OwnerId | None = None


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """The name that a client gave a request, so that its repeat can be told; and what was asked, as a hash."""

    name: str
    body_sha256: bytes


@dataclass(frozen=True, slots=True)
class Message:
    """One accepted entry of a conversation. `task_id` is the turn that it started or that wrote it."""

    id: MessageId
    role: Role
    parts: tuple[Part, ...]
    task_id: TaskId
    created_at: datetime


@dataclass(frozen=True, slots=True)
class PendingMessage:
    """A message that waits in the mailbox for a turn to take it."""

    id: MessageId
    parts: tuple[Part, ...]
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Promoted:
    """A message that a turn has taken out of the mailbox, between two of its steps; it is one of the conversation."""

    id: MessageId
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class SessionEntry:
    """A conversation as a list shows it."""

    id: SessionId
    number: int
    """Its place in the order of creation, among all sessions."""
    owner: OwnerId | None
    """None: it is nobody's yet."""
    settings: SessionSettings
    created_at: datetime
    busy: bool
    """Whether a turn is queued or running."""


@dataclass(frozen=True, slots=True)
class Session:
    """A conversation with a page of its messages in their order."""

    entry: SessionEntry
    messages: tuple[Message, ...]
    pending: tuple[PendingMessage, ...]
    """What waits in the mailbox, in its order."""
    earlier: bool
    """Whether there are messages before these."""


@dataclass(frozen=True, slots=True)
class History:
    """What an agent is given of a conversation: how it is set, and its newest messages in their order."""

    settings: SessionSettings
    messages: tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class NewMessage:
    """A message to be posted. Without an id it gets one."""

    parts: tuple[InputPart, ...]
    id: MessageId | None = None


@dataclass(frozen=True, slots=True)
class Posted:
    """A message was accepted: a turn is queued for it, or it waits in the mailbox of the turn that is named."""

    task_id: TaskId
    message_id: MessageId
    status: Literal["accepted", "pending"] = "accepted"
