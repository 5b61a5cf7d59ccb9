"""Completions over RabbitMQ, as an external service that is written in Python sends them.

Apart from the rest of the client, since it needs aio-pika besides.
"""

import asyncio
from collections.abc import Mapping
from types import TracebackType
from typing import Final

import aio_pika
import orjson
from aio_pika.abc import AbstractConnection, AbstractExchange, DeliveryMode
from aio_pika.connection import Connection, make_url
from aio_pika.exceptions import CONNECTION_EXCEPTIONS, DeliveryError

from service.client.errors import Unreachable
from service.client.playhead import completion_of
from service.model.errors import InvalidInput
from service.model.events import Json
from service.model.ids import OperationId
from service.model.intake import EXCHANGE, ROUTING_KEY
from service.model.operation import Failed, Succeeded

PUBLISH_SECONDS: Final = 10.0
"""So long connecting and one message may take, together."""


AWAY: Final = "The broker cannot be reached."


class Publisher:
    """Publishes to the broker at `url`, for the time of an `async with` block; `app_id` is kept as who it was.

    Each message is persistent, and the broker has confirmed it when the call returns. Where that cannot be had it
    raises Unreachable: say it again then, which is harmless, for it is one message as long as its name is the same. One
    task at a time calls.
    """

    def __init__(self, url: str, app_id: str | None = None) -> None:
        self._url = url
        self._app_id = app_id
        self._connection: AbstractConnection | None = None
        self._exchange: AbstractExchange | None = None

    async def __aenter__(self) -> "Publisher":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._close()

    async def complete(
        self, operation_id: OperationId, outcome: Succeeded | Failed, message_id: str | None = None
    ) -> None:
        """Say how an operation ended. The message is called `<operation>.end`, where it is not called otherwise.

        Raises InvalidInput for what JSON cannot say.
        """
        await self._publish(
            {"operation_id": operation_id, **completion_of(outcome)}, message_id or f"{operation_id}.end"
        )

    async def report_progress(self, operation_id: OperationId, progress: Json, message_id: str | None = None) -> None:
        """Say how far an operation is: any JSON of up to 16 KiB. Raises as `complete` does."""
        await self._publish({"operation_id": operation_id, "progress": progress}, message_id)

    async def _publish(self, body: Mapping[str, Json], message_id: str | None) -> None:
        try:
            data = orjson.dumps(body)
        except orjson.JSONEncodeError:
            raise InvalidInput("The message holds something that JSON cannot say.") from None
        message = aio_pika.Message(
            data,
            message_id=message_id,
            app_id=self._app_id,
            content_type="application/json",
            delivery_mode=DeliveryMode.PERSISTENT,
        )
        try:
            async with asyncio.timeout(PUBLISH_SECONDS):
                await (await self._opened()).publish(message, ROUTING_KEY, mandatory=True)
        except DeliveryError as error:
            raise Unreachable("No queue takes this at the broker: no Playhead has been attached to it yet.") from error
        except (*CONNECTION_EXCEPTIONS, TimeoutError) as error:
            await self._close()
            raise Unreachable(AWAY) from error
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            await self._close()
            raise Unreachable(AWAY) from error  # the library cancels what waits for a connection that is lost

    async def _opened(self) -> AbstractExchange:
        if self._exchange is None or self._connection is None or self._connection.is_closed:
            await self._close()
            self._connection = connection = Connection(make_url(self._url))
            await connection.connect()
            channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
            self._exchange = await channel.get_exchange(EXCHANGE)
        return self._exchange

    async def _close(self) -> None:
        connection, self._connection, self._exchange = self._connection, None, None
        if connection is not None:
            try:
                async with asyncio.timeout(1):
                    await connection.close()
            except (*CONNECTION_EXCEPTIONS, TimeoutError):
                pass
