"""RabbitMQ: exchanges and queues of completions, and how this house talks to it, with a bound on everything.

A completion is published to `chat_operations` and waits in `chat_operation_complete` until it is taken. What cannot be
taken yet waits in the queue of the parked, which gives it back to the exchange; what can never be taken, and what came
back too often, is kept in the queue of the dead. All are quorum queues, and what moves from one to another is confirmed
by the next before the last forgets it.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import aio_pika
import aiormq.abc
from aio_pika.abc import AbstractChannel, AbstractConnection, DeliveryMode
from aio_pika.connection import Connection, make_url
from aio_pika.exceptions import CONNECTION_EXCEPTIONS
from aiormq.abc import DeliveredMessage

from service.model.errors import BrokerUnavailable, PlayheadError, translate
from service.model.intake import EXCHANGE, ROUTING_KEY, QueueDepths

DELIVERY_LIMIT: Final = 10
"""So often a message may come back unsettled; then it is a dead letter."""

PARK_PAUSE_SECONDS: Final = 5.0
"""How long what is parked stays away."""

CONNECT_SECONDS: Final = 10.0
CALL_SECONDS: Final = 5.0
"""The deadline of one call. What became of a call that was not answered by then is unknown."""

CLOSE_SECONDS: Final = 1.0
"""How long a connection may take to say goodbye."""

HEARTBEAT_SECONDS: Final = 5
"""Asked of the broker, unless the URL has another: it gives a consumer up after twice that."""

FIRST_SEEN: Final = "x-playhead-first-seen"
"""A header of what was parked: when that was first so, in ms of Unix time."""

REASON: Final = "x-playhead-reason"
DETAIL: Final = "x-playhead-detail"
DIED_AT: Final = "x-playhead-died-at"
"""Headers of dead letters: why, in a word and in a sentence, and when, in ms of Unix time."""

_NOT_COPIED: Final = (
    "x-playhead-",
    "x-death",
    "x-first-death-",
    "x-last-death-",
    "x-delivery-count",
    "x-acquired-count",
)

_NO_LIMIT: Final = 2**31 - 1
"""Looking at a dead letter is a delivery, and RabbitMQ 4 drops what was delivered twenty times."""

_FOREIGN: Final[dict[type[BaseException], type[PlayheadError]]] = dict.fromkeys(
    CONNECTION_EXCEPTIONS, BrokerUnavailable
)


@dataclass(frozen=True, slots=True)
class Names:
    """All names at the broker. Tests set a prefix of their own."""

    prefix: str = ""

    @property
    def exchange(self) -> str:
        return f"{self.prefix}{EXCHANGE}"

    @property
    def queue(self) -> str:
        return f"{self.prefix}chat_operation_complete"

    @property
    def parked(self) -> str:
        return f"{self.prefix}chat_operation_complete.parked"

    @property
    def dead_exchange(self) -> str:
        return f"{self.prefix}{EXCHANGE}.dead"

    @property
    def dead(self) -> str:
        return f"{self.prefix}chat_operation_complete.dead"


@dataclass(frozen=True, slots=True)
class Patience:
    """How long things may take, in seconds; tests set shorter ones."""

    connect: float = CONNECT_SECONDS
    call: float = CALL_SECONDS
    park: float = PARK_PAUSE_SECONDS
    waits: Sequence[float] = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0)
    """Before each try to attach again; the last one from then on."""


@asynccontextmanager
async def asking(seconds: float) -> AsyncGenerator[None]:
    """Calls of the library, all within so many seconds. Raises BrokerUnavailable for all that it raises.

    It breaks what waits for a connection that is lost by whatever that was lost by, which may be a CancelledError or a
    plain Exception: neither must be taken for what those are elsewhere.
    """
    try:
        with translate(_FOREIGN):
            async with asyncio.timeout(seconds):
                yield
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise BrokerUnavailable from error
    except Exception as error:
        if type(error) is Exception:
            raise BrokerUnavailable from error
        raise


@dataclass(frozen=True, slots=True)
class Line:
    """A connection with one channel."""

    connection: AbstractConnection
    channel: AbstractChannel
    raw: aiormq.abc.AbstractChannel
    """The same channel one layer below. There messages come as they are: the layer above refuses to make objects of
    some that the broker lets pass, and such a message would stay in hand for good."""

    @property
    def is_closed(self) -> bool:
        return self.channel.is_closed

    async def close(self) -> None:
        """Say goodbye, within CLOSE_SECONDS each. What it delivered and nobody settled goes back to the broker."""
        for part in (self.channel, self.connection):
            with suppress(BrokerUnavailable):
                async with asking(CLOSE_SECONDS):
                    await part.close()


async def open_line(url: str, *, confirms: bool) -> Line:
    """Connect, without a bound of its own: `asking` has one.

    What cannot be connected is closed all the same, else the library does that when it is forgotten, in any thread.
    """
    asked: dict[str, Any] = {} if "heartbeat" in parse_qs(urlsplit(url).query) else {"heartbeat": HEARTBEAT_SECONDS}
    named: dict[str, Any] = {"connection_name": "playhead"}
    connection = Connection(make_url(url, **asked), client_properties=named, **asked)
    try:
        await connection.connect()
        channel = connection.channel(publisher_confirms=confirms, on_return_raises=confirms)
        await channel.initialize()
        return Line(connection, channel, await channel.get_underlay_channel())
    except BaseException:
        with suppress(*CONNECTION_EXCEPTIONS):
            await connection.close()
        raise


async def declare(line: Line, names: Names) -> None:
    """Have all exchanges and queues. A repeat changes nothing; where one has another shape the broker refuses."""
    for exchange in (names.exchange, names.dead_exchange):
        await line.raw.exchange_declare(exchange, exchange_type="direct", durable=True)
    await _declare_queue(line, names.queue, names.dead_exchange, DELIVERY_LIMIT)
    await _declare_queue(line, names.parked, names.exchange)
    await _declare_queue(line, names.dead)
    await line.raw.queue_bind(names.queue, names.exchange, ROUTING_KEY)
    await line.raw.queue_bind(names.dead, names.dead_exchange, ROUTING_KEY)


async def _declare_queue(line: Line, name: str, dead_letters_to: str | None = None, limit: int = _NO_LIMIT) -> None:
    arguments: dict[str, Any] = {"x-queue-type": "quorum", "x-delivery-limit": limit, "x-overflow": "reject-publish"}
    if dead_letters_to is not None:
        arguments |= {
            "x-dead-letter-exchange": dead_letters_to,
            "x-dead-letter-routing-key": ROUTING_KEY,
            "x-dead-letter-strategy": "at-least-once",
        }
    await line.raw.queue_declare(name, durable=True, arguments=arguments)


async def depths(line: Line, names: Names) -> QueueDepths:
    """How many messages wait in the queues."""
    told = [await line.raw.queue_declare(name, passive=True) for name in (names.queue, names.parked, names.dead)]
    ready, parked, dead = (each.message_count or 0 for each in told)
    return QueueDepths(ready, parked, dead)


def header(message: DeliveredMessage, name: str) -> Any:
    """A header as its sender or the broker set it, whatever that is; None where it is not there."""
    return (message.header.properties.headers or {}).get(name)


def whole_number(message: DeliveredMessage, name: str) -> int | None:
    """A header that is a whole number from 0 on; None where it is anything else."""
    value = header(message, name)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def copy_of(message: DeliveredMessage, headers: Mapping[str, Any]) -> aio_pika.Message:
    """The same message, with these headers instead of those that the broker and we have set. It does not expire."""
    told = message.header.properties
    theirs = {
        name: bytearray(value) if isinstance(value, bytes) else value  # text that is no UTF-8 can be read, not written
        for name, value in (told.headers or {}).items()
        if not name.startswith(_NOT_COPIED)
    }
    return aio_pika.Message(
        message.body,
        headers={**theirs, **headers},
        content_type=told.content_type,
        content_encoding=told.content_encoding,
        correlation_id=told.correlation_id,
        reply_to=told.reply_to,
        message_id=told.message_id,
        timestamp=told.timestamp,
        type=told.message_type,
        app_id=told.app_id,
        delivery_mode=DeliveryMode.PERSISTENT,
    )


class Outlet:
    """Publishes, over a connection of its own: one that the broker blocks, since it is short of room, must not hold up
    what is acknowledged over another. It connects when it is first used, and again when that is lost.
    """

    def __init__(self, url: str, names: Names, patience: Patience) -> None:
        self._url = url
        self._names = names
        self._patience = patience
        self._line: Line | None = None
        self._opening = asyncio.Lock()

    async def send(self, message: aio_pika.Message, exchange: str, routing_key: str = ROUTING_KEY) -> None:
        """Publish, and return once the broker has it for good. Raises BrokerUnavailable: then it may have it or not.

        Also where no queue would take it. While the broker is short of room this waits for it, within the deadline.
        """
        line = await self._opened()
        async with asking(self._patience.call):
            if line.connection.transport is not None:
                await line.connection.transport.ready()
            target = (
                await line.channel.get_exchange(exchange, ensure=False) if exchange else line.channel.default_exchange
            )
            await target.publish(message, routing_key, mandatory=True)

    async def _opened(self) -> Line:
        async with self._opening:
            if self._line is None or self._line.is_closed:
                await self.close()
                async with asking(self._patience.connect):
                    line = await open_line(self._url, confirms=True)
                self._line = line
                async with asking(self._patience.call):
                    await declare(line, self._names)
            return self._line

    async def close(self) -> None:
        """Let go of the connection; what is sent later makes another one."""
        line, self._line = self._line, None
        if line is not None:
            await line.close()
