"""The door of completions over RabbitMQ: each message becomes a report, is taken, and then settled with the broker.

Nothing is settled before what it asks for is stored, and nothing is lost where that cannot be: what waits for a store
stays in hand, what comes too early is parked, what can never be taken becomes a dead letter.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from datetime import datetime
from typing import Final, Literal, Protocol, assert_never

import structlog

from service.model.completion import MAX_COMPLETION_BYTES, read_completion
from service.model.errors import (
    BrokerUnavailable,
    DatabaseUnavailable,
    InvalidInput,
    NotFound,
    StoreUnavailable,
    cause_of,
)
from service.model.ids import parse_operation_id, parse_task_id
from service.model.intake import (
    Attached,
    Dead,
    Detached,
    Done,
    Incoming,
    IntakeState,
    Parked,
    QueueDepths,
    Renewed,
    Returned,
    Settlement,
    WaitsFor,
)
from service.model.operation import (
    Accepted,
    Completion,
    Conflicting,
    Delivery,
    Duplicate,
    Noted,
    Progress,
    Refused,
    Report,
    Unknown,
)

log = structlog.get_logger()

PARK_SECONDS: Final = 300.0
"""For how long a completion may be earlier than its operation; then it is a dead letter."""

HOLD_SECONDS: Final = 600.0
"""So long a message is held while a store is away; then it goes to the end of the queue, as a new one. A broker takes
what is held for longer than its consumer time-out (30 minutes, 15 in some versions) for lost, and counts that."""

DRAIN_SECONDS: Final = 10.0
"""How long what is being taken may go on after a stop; then it is given up, and goes back to the broker."""

ABORT_SECONDS: Final = 1.0
"""How long what is given up is waited for."""

STORE_WAITS: Final = (0.1, 0.25, 0.5, 1.0, 2.0, 5.0)
"""Seconds before each new try while a store or the broker is away; the last one from then on."""

BUG_WAITS: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0)
"""Seconds before a message goes back of which a try failed, by how often it came back before: what it failed by may
pass. All but the other messages in hand go on meanwhile."""

MAX_BY: Final = 64
MAX_MESSAGE_ID: Final = 255
MAX_DETAIL: Final = 300
"""Characters of what is said of a dead letter."""

Label = Literal["accepted", "duplicate", "conflicting", "noted", "parked", "dead", "returned", "renewed"]
"""What became of a delivery, as it is counted."""


class Takes(Protocol):
    """The one path of all completions."""

    async def take(
        self, report: Completion | Progress
    ) -> Accepted | Duplicate | Conflicting | Unknown | Refused | Noted:
        """Store it and what it leads to, in one transaction. A repeat has no further effect.

        Raises DatabaseUnavailable while the database is away: then it may be stored or not.
        """


class Intake(Protocol):
    """What comes from a broker, which keeps each message until it is settled, and gives it out again if it never is."""

    depths: QueueDepths | None
    """How long its queues are, as last told."""

    def items(self) -> AsyncGenerator[Incoming | Attached | Detached]:
        """What comes, in its order, with when that begins and ends; no more than a prefetch count unsettled at once.

        It attaches again for ever. What was unsettled at Detached is nobody's any more, and comes again. Ends some time
        after `stop_taking`.
        """

    async def settle(self, message: Incoming, settlement: Settlement) -> None:
        """Say what becomes of a message, once. What goes elsewhere is confirmed there before it is forgotten here.

        Raises BrokerUnavailable: it was done or not. A repeat is harmless: it may leave a second copy.
        """

    async def stop_taking(self) -> None:
        """Have nothing more come. What is in hand can still be settled; a repeat changes nothing."""


class Completions:
    """Takes what comes over the broker, all that is in hand at once, so that none holds up another.

    `now` is the time of day in UTC, `monotonic` only goes forward; `note` is told what became of each delivery.
    """

    def __init__(
        self,
        intake: Intake,
        takes: Takes,
        now: Callable[[], datetime],
        monotonic: Callable[[], float],
        note: Callable[[Label], None],
        *,
        park_seconds: float = PARK_SECONDS,
        hold_seconds: float = HOLD_SECONDS,
        store_waits: Sequence[float] = STORE_WAITS,
        bug_waits: Sequence[float] = BUG_WAITS,
    ) -> None:
        self._intake = intake
        self._takes = takes
        self._now = now
        self._monotonic = monotonic
        self._note = note
        self._park_seconds = park_seconds
        self._hold_seconds = hold_seconds
        self._store_waits = store_waits
        self._bug_waits = bug_waits
        self._in_hand: set[asyncio.Task[None]] = set()
        self._waiting: dict[asyncio.Task[None], tuple[WaitsFor, datetime]] = {}
        """Which of those wait for something that is away, and since when."""
        self._attached_since: datetime | None = None
        self._detached_since = now()
        self._last_delivery: datetime | None = None

    def state(self) -> IntakeState:
        """How it is now."""
        waits_for: WaitsFor | None = None
        since: datetime | None = None
        if self._attached_since is None:
            waits_for, since = "rabbitmq", self._detached_since
        elif self._waiting:
            waits_for, since = min(self._waiting.values(), key=lambda waiting: waiting[1])
        return IntakeState(
            self._attached_since, self._last_delivery, len(self._in_hand), waits_for, since, self._intake.depths
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Take what comes until `stop` is set, then finish what is in hand, within DRAIN_SECONDS.

        What waits for a store then is not waited for. What is not finished goes back to the broker when that is closed,
        and so does everything where this is cancelled.
        """
        stopping = asyncio.create_task(self._stop_at(stop), name="completions-stop")
        try:
            async with aclosing(self._intake.items()) as items:
                async for item in items:
                    match item:
                        case Attached():
                            log.info("amqp_attached")
                            self._attached_since = self._now()
                        case Detached(cause):
                            log.warning("amqp_waits", cause=cause)
                            self._attached_since, self._detached_since = None, self._now()
                            await self._give_up(self._in_hand)
                        case Incoming():
                            self._last_delivery = self._now()
                            work = asyncio.create_task(self._work(item, stop), name=f"completion-{item.tag}")
                            self._in_hand.add(work)
                            work.add_done_callback(self._forget)
                        case other:
                            assert_never(other)
            if self._in_hand:
                await asyncio.wait(self._in_hand, timeout=DRAIN_SECONDS)
        finally:
            stopping.cancel()
            await asyncio.wait([stopping])
            await self._give_up(self._in_hand)

    async def _stop_at(self, stop: asyncio.Event) -> None:
        await stop.wait()
        for work in self._waiting:
            work.cancel()
        await self._intake.stop_taking()

    async def _give_up(self, works: set[asyncio.Task[None]]) -> None:
        """Stop these: another may have their messages already."""
        if works:
            for work in works:
                work.cancel()
            await asyncio.wait(set(works), timeout=ABORT_SECONDS)

    def _forget(self, work: asyncio.Task[None]) -> None:
        self._in_hand.discard(work)
        if self._waiting.pop(work, None) is not None and not self._waiting:
            log.info("completions_go_on")

    async def _work(self, message: Incoming, stop: asyncio.Event) -> None:
        """One message, to its end; or to where the process is to stop, and leaves it to the broker."""
        judged = await self._judge(message, stop)
        if judged is not None:
            await self._settle(message, *judged, stop)

    async def _judge(self, message: Incoming, stop: asyncio.Event) -> tuple[Settlement, Label] | None:
        """Have it taken, however long that needs, and say what becomes of it."""
        report = _report_of(message)
        if isinstance(report, Dead):
            return report, "dead"
        begun, tries = self._monotonic(), 0
        while True:
            try:
                disposition = await self._takes.take(report)
            except StoreUnavailable as error:
                if stop.is_set():
                    return None
                if self._monotonic() - begun >= self._hold_seconds:
                    return Renewed(), "renewed"
                await self._wait("postgres" if isinstance(error, DatabaseUnavailable) else "redis", error, tries)
                tries += 1
            except Exception:
                # The edge of this message: a mistake of ours, which may be one with this message alone.
                log.exception("completion_failed", operation_id=report.operation_id, deliveries=message.deliveries + 1)
                await asyncio.sleep(_at(self._bug_waits, message.deliveries))
                return Returned(), "returned"
            else:
                return self._settlement(message, disposition)

    def _settlement(
        self, message: Incoming, disposition: Accepted | Duplicate | Conflicting | Unknown | Refused | Noted
    ) -> tuple[Settlement, Label]:
        match disposition:
            case Accepted():
                return Done(), "accepted"
            case Duplicate():
                return Done(), "duplicate"
            case Conflicting():
                return Done(), "conflicting"
            case Noted():
                return Done(), "noted"
            case Refused(reason):
                return Dead("refused", reason[:MAX_DETAIL]), "dead"
            case Unknown():
                now_ms = int(self._now().timestamp() * 1000)
                first_seen_ms = min(message.first_seen_ms or now_ms, now_ms)
                if now_ms - first_seen_ms < self._park_seconds * 1000:
                    return Parked(first_seen_ms), "parked"
                return Dead("unknown", f"There was no such operation for {self._park_seconds:g} s."), "dead"
            case other:
                assert_never(other)

    async def _settle(self, message: Incoming, settlement: Settlement, label: Label, stop: asyncio.Event) -> None:
        tries = 0
        while True:
            try:
                await self._intake.settle(message, settlement)
            except BrokerUnavailable as error:
                if stop.is_set():
                    return
                await self._wait("rabbitmq", error, tries)
                tries += 1
            except Exception:
                # A message that cannot be copied, for one: the broker itself can, when it came back often enough.
                log.exception("settlement_failed", settlement=type(settlement).__name__.lower())
                if isinstance(settlement, Returned):
                    return
                settlement, label = Returned(), "returned"
            else:
                self._note(label)
                if isinstance(settlement, Dead):
                    log.warning("completion_dead", reason=settlement.reason, message_id=_id_of(message))
                return

    async def _wait(self, waits_for: WaitsFor, error: StoreUnavailable, tries: int) -> None:
        """Wait for something that is away, and for longer each time. Ends at once when the process is to stop."""
        if not self._waiting:
            log.warning("completions_wait", waits_for=waits_for, cause=cause_of(error))
        work = asyncio.current_task()
        if work in self._in_hand and self._waiting.get(work, (None,))[0] != waits_for:
            self._waiting[work] = waits_for, self._now()
        await asyncio.sleep(_at(self._store_waits, tries))


def _at(waits: Sequence[float], tries: int) -> float:
    return waits[min(tries, len(waits) - 1)]


def _report_of(message: Incoming) -> Report | Dead:
    """What a message says; Dead where it says nothing that could ever be taken."""
    if len(message.body) > MAX_COMPLETION_BYTES:
        return Dead("too_large", f"The message has more than {MAX_COMPLETION_BYTES} bytes.")
    try:
        body = read_completion(message.body)
    except InvalidInput as error:
        return Dead("unreadable", str(error)[:MAX_DETAIL])
    if body.operation_id is None:
        return Dead("no_operation_id", "The message names no operation.")
    try:
        operation_id = parse_operation_id(body.operation_id)
    except NotFound:
        return Dead("unknown", "No operation can be called so.")
    try:
        task_id = None if body.task_id is None else parse_task_id(body.task_id)
    except NotFound:
        return Dead("refused", "No task can be called so.")
    delivery = Delivery("amqp", _by(message), _id_of(message))
    if body.is_progress:
        return Progress(operation_id, body.progress, delivery, task_id)
    return Completion(operation_id, body.outcome, delivery, task_id)


def _by(message: Incoming) -> str:
    """Who it came from, as it says itself: nobody has checked it."""
    safe = "".join(letter if " " <= letter <= "~" else "?" for letter in (message.app_id or "")[:MAX_BY]).strip()
    return safe or "amqp"


def _id_of(message: Incoming) -> str | None:
    """What its sender calls it, where that can be kept."""
    told = message.message_id
    return told if told is not None and len(told) <= MAX_MESSAGE_ID and told.isprintable() else None
