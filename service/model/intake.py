"""What comes in through a message broker, and what becomes of each message there."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

EXCHANGE: Final = "chat_operations"
ROUTING_KEY: Final = "operation.complete"
"""Where services publish completions."""


@dataclass(frozen=True, slots=True)
class Incoming:
    """A message that is in hand: the broker keeps it until it is settled, or gives it to another."""

    attachment: int
    """The number of the connection over which it came: over no other can it be settled."""
    tag: int
    """Its name on that connection."""
    body: bytes
    message_id: str | None
    app_id: str | None
    is_redelivered: bool
    deliveries: int
    """How often it was in somebody's hands before, and came back unsettled."""
    first_seen_ms: int | None
    """When it was first parked, in Unix time; None where it never was."""


@dataclass(frozen=True, slots=True)
class Attached:
    """Messages come from now on."""


@dataclass(frozen=True, slots=True)
class Detached:
    """None come any more, and what was in hand is not: the broker gives it out again."""

    cause: str
    """The class of what went wrong."""


@dataclass(frozen=True, slots=True)
class Done:
    """It had its effect, which is stored: the broker may forget it."""


@dataclass(frozen=True, slots=True)
class Returned:
    """It goes back, and that is counted: at the broker's limit it becomes a dead letter."""


@dataclass(frozen=True, slots=True)
class Renewed:
    """It goes to the end of the queue as a new message, of which nothing is counted yet."""


@dataclass(frozen=True, slots=True)
class Parked:
    """It comes again after a while."""

    first_seen_ms: int


DeadReason = Literal["unreadable", "too_large", "no_operation_id", "refused", "unknown", "failed", "expired", "other"]
"""Why a message is a dead letter. `failed`: it came back too often; `expired`: its sender's time for it was over."""


MAX_LETTERS: Final = 1000
"""So many dead letters are shown at once: each is fetched from the broker for it."""

LETTER_ID: Final = r"^[0-9a-f]{16}$"
"""What a dead letter's id looks like."""


@dataclass(frozen=True, slots=True)
class Dead:
    """Nobody can take it as it is; it is kept for operators."""

    reason: DeadReason
    detail: str
    """A sentence that repeats nothing of the body but names of members."""


Settlement = Done | Returned | Renewed | Parked | Dead


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A dead letter, as operators see it."""

    id: str
    """The same for the same message whenever it is looked at; copies of one message share it."""
    reason: DeadReason
    detail: str
    died_at: datetime | None
    message_id: str | None
    app_id: str | None
    size: int
    """Of its body, in bytes."""
    body: bytes
    """The first few kilobytes."""


@dataclass(frozen=True, slots=True)
class QueueDepths:
    """How many messages wait at the broker, in nobody's hands."""

    ready: int
    parked: int
    dead: int


WaitsFor = Literal["rabbitmq", "postgres", "redis"]


@dataclass(frozen=True, slots=True)
class IntakeState:
    """How a door is that work comes through by itself. Times are in UTC."""

    attached_since: datetime | None
    """None while it has no broker."""
    last_delivery: datetime | None
    in_hand: int
    """Messages that are being worked on."""
    waits_for: WaitsFor | None
    """What has to come back before anything goes on; None while all is well."""
    waits_since: datetime | None
    depths: QueueDepths | None
    """As the broker last told them; None where it has not yet."""
