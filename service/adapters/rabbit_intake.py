"""What comes in from RabbitMQ: attached for ever, over one connection after another, and each message settled."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import Any, Final, assert_never

import aio_pika
import structlog
from aiormq.abc import DeliveredMessage

from service.adapters.rabbit import (
    DETAIL,
    DIED_AT,
    FIRST_SEEN,
    REASON,
    Line,
    Names,
    Outlet,
    Patience,
    asking,
    copy_of,
    declare,
    depths,
    open_line,
    whole_number,
)
from service.model.errors import BrokerUnavailable, cause_of
from service.model.intake import (
    Attached,
    Dead,
    Detached,
    Done,
    Incoming,
    Parked,
    QueueDepths,
    Renewed,
    Returned,
    Settlement,
)

log = structlog.get_logger()

PREFETCH: Final = 64
"""Messages that are in hand at once."""

CAREFUL_DELIVERIES: Final = 2 * PREFETCH
"""So many messages are taken one by one behind a connection that was lost: what is in hand when one is lost has come
back once more, and at the limit it is a dead letter. One that cannot be decoded ends its connection each time; so it
takes none along."""

PROBE_SECONDS: Final = 5.0
"""So often the broker is asked whether it is still there, and how long its queues are."""

STEADY_SECONDS: Final = 10.0
"""A connection that has lasted for so long was a good one: the next try comes soon."""


@dataclass(slots=True, eq=False)
class _Attachment:
    """One connection on which messages come."""

    number: int
    line: Line
    arrived: "asyncio.Queue[DeliveredMessage | Detached | None]" = field(default_factory=asyncio.Queue)
    """Bounded by the prefetch count, which is the broker's promise. None: no more will come."""
    in_hand: dict[int, DeliveredMessage] = field(default_factory=dict)
    consumer: str | None = None
    prefetch: int = 1
    probing: asyncio.Task[None] | None = None

    async def consume(self, queue: str, prefetch: int) -> None:
        """Have the messages of this queue come, so many at once; instead of those that were asked for before."""
        before = self.consumer
        await self.line.raw.basic_qos(prefetch_count=prefetch)
        self.consumer = (await self.line.raw.basic_consume(queue, self._arrive)).consumer_tag
        self.prefetch = prefetch
        if before is not None:
            await self.line.raw.basic_cancel(before)

    async def _arrive(self, message: DeliveredMessage) -> None:
        self.arrived.put_nowait(message)

    def lose(self, cause: str) -> None:
        """It is of no use any more."""
        self.arrived.put_nowait(Detached(cause))

    async def close(self) -> None:
        """Not before all is settled: a call that is broken off, as the probe's may be here, closes the channel."""
        if self.probing is not None:
            self.probing.cancel()
            await asyncio.wait([self.probing])
        await self.line.close()


class Intake:
    """The port `Intake` of the completions: see there for what is promised."""

    def __init__(
        self,
        url: str,
        names: Names,
        outlet: Outlet,
        clock_ms: Callable[[], int],
        patience: Patience,
        *,
        prefetch: int = PREFETCH,
        probe_seconds: float = PROBE_SECONDS,
    ) -> None:
        self._url = url
        self._names = names
        self._outlet = outlet
        self._clock_ms = clock_ms
        self._patience = patience
        self._prefetch = prefetch
        self._probe_seconds = probe_seconds
        self._attachment: _Attachment | None = None
        self._attachments = 0
        self._careful = 0
        """So many more messages are taken one by one."""
        self._stopping = asyncio.Event()
        self._consuming = asyncio.Lock()
        self.depths: QueueDepths | None = None
        """As the broker last told them."""

    async def items(self) -> AsyncGenerator[Incoming | Attached | Detached]:
        """What comes, until no more is to come; whatever happens to the broker meanwhile."""
        failures, is_told = 0, False
        clock = asyncio.get_running_loop().time
        while not self._stopping.is_set():
            try:
                attachment = await self._attach()
            except BrokerUnavailable as error:
                if not is_told:
                    yield Detached(cause_of(error))
            else:
                since = clock()
                yield Attached()
                while isinstance(arrived := await attachment.arrived.get(), DeliveredMessage):
                    yield self._taken(attachment, arrived)
                    await self._widen(attachment)
                if arrived is None:
                    return
                self._careful = CAREFUL_DELIVERIES
                yield arrived
                failures = 0 if clock() - since > STEADY_SECONDS else failures
            is_told = True
            await self._rest(self._patience.waits[min(failures, len(self._patience.waits) - 1)])
            failures += 1

    async def settle(self, message: Incoming, settlement: Settlement) -> None:
        """Say what becomes of a message. Raises BrokerUnavailable: then nothing is known to have become of it."""
        attachment = self._attachment
        if attachment is None or attachment.number != message.attachment:
            raise BrokerUnavailable
        if (delivered := attachment.in_hand.get(message.tag)) is None:
            raise BrokerUnavailable
        names = self._names
        match settlement:
            case Done() | Returned():
                pass
            case Renewed():
                headers = {} if message.first_seen_ms is None else {FIRST_SEEN: message.first_seen_ms}
                await self._outlet.send(copy_of(delivered, headers), names.exchange)
            case Parked(first_seen_ms):
                parked = copy_of(delivered, {FIRST_SEEN: first_seen_ms})
                parked.expiration = self._patience.park
                await self._outlet.send(parked, "", names.parked)
            case Dead(reason, detail):
                await self._outlet.send(self._dead(delivered, reason, detail), names.dead_exchange)
            case other:
                assert_never(other)
        async with asking(self._patience.call):
            if isinstance(settlement, Returned):
                await attachment.line.raw.basic_reject(message.tag, requeue=True)
            else:
                await attachment.line.raw.basic_ack(message.tag)
        del attachment.in_hand[message.tag]

    def _dead(self, delivered: DeliveredMessage, reason: str, detail: str) -> aio_pika.Message:
        headers: dict[str, Any] = {REASON: reason, DETAIL: detail, DIED_AT: self._clock_ms()}
        return copy_of(delivered, headers)

    async def stop_taking(self) -> None:
        """Have no more messages come. Those that are in hand can still be settled; a repeat changes nothing."""
        self._stopping.set()
        async with self._consuming:
            attachment = self._attachment
            if attachment is None or attachment.consumer is None:
                return
            consumer, attachment.consumer = attachment.consumer, None
            try:
                async with asking(self._patience.call):
                    await attachment.line.raw.basic_cancel(consumer)
            except BrokerUnavailable as error:
                attachment.lose(cause_of(error))
            attachment.arrived.put_nowait(None)

    async def close(self) -> None:
        """Let go of the connection: what is in hand goes back to the broker."""
        attachment, self._attachment = self._attachment, None
        if attachment is not None:
            await attachment.close()

    async def _attach(self) -> _Attachment:
        """Connect and begin to take, instead of by the connection before. It stays behind `items`, to settle with."""
        await self.close()
        async with asking(self._patience.connect):
            line = await open_line(self._url, confirms=False)
        self._attachments += 1
        attachment = self._attachment = _Attachment(self._attachments, line)
        async with asking(self._patience.connect):
            await declare(line, self._names)
            line.raw.on_consumer_cancel_callbacks.add(lambda _: attachment.lose("ConsumerCancelled"))
            line.raw.closing.add_done_callback(lambda closing: attachment.lose(_cause(closing)))
            async with self._consuming:
                if self._stopping.is_set():
                    attachment.arrived.put_nowait(None)
                else:
                    await attachment.consume(self._names.queue, 1 if self._careful else self._prefetch)
        attachment.probing = asyncio.create_task(self._probe(attachment), name="rabbit-probe")
        return attachment

    def _taken(self, attachment: _Attachment, delivered: DeliveredMessage) -> Incoming:
        tag, told = delivered.delivery_tag or 0, delivered.header.properties
        attachment.in_hand[tag] = delivered
        self._careful = max(0, self._careful - 1)
        return Incoming(
            attachment=attachment.number,
            tag=tag,
            body=delivered.body,
            message_id=told.message_id or None,
            app_id=told.app_id or None,
            is_redelivered=bool(delivered.redelivered),
            deliveries=whole_number(delivered, "x-delivery-count") or 0,
            first_seen_ms=whole_number(delivered, FIRST_SEEN),
        )

    async def _widen(self, attachment: _Attachment) -> None:
        """Take as many at once as usual, when care is over. (A prefetch count is for consumers that come later.)"""
        if self._careful or attachment.prefetch == self._prefetch:
            return
        async with self._consuming:
            if attachment.consumer is None:
                return
            try:
                async with asking(self._patience.call):
                    await attachment.consume(self._names.queue, self._prefetch)
            except BrokerUnavailable as error:
                attachment.lose(cause_of(error))

    async def _probe(self, attachment: _Attachment) -> None:
        """Ask from time to time: a connection whose other end is gone stays silent, and heartbeats take long."""
        try:
            while True:
                async with asking(self._patience.call):
                    self.depths = await depths(attachment.line, self._names)
                await asyncio.sleep(self._probe_seconds)
        except BrokerUnavailable as error:
            attachment.lose(cause_of(error))

    async def _rest(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            pass


def _cause(closing: "asyncio.Future[Any]") -> str:
    error = None if closing.cancelled() else closing.exception()
    return "Closed" if error is None else type(error).__name__
