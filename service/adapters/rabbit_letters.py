"""The dead letters of RabbitMQ: looked at without taking them, and sent again."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, get_args

import structlog
from aiormq.abc import DeliveredMessage

from service.adapters.rabbit import (
    DETAIL,
    DIED_AT,
    REASON,
    Line,
    Names,
    Outlet,
    Patience,
    asking,
    copy_of,
    declare,
    depths,
    header,
    open_line,
    whole_number,
)
from service.model.errors import BrokerUnavailable
from service.model.intake import DeadLetter, DeadReason

log = structlog.get_logger()

MAX_LOOKED_AT: Final = 10_000
"""Of one call. Those behind them are found once some of these are gone."""

PUT_BACK_SECONDS: Final = 1.0
"""So long it is waited for what was looked at to be there again; another one may have removed it."""

SHOWN_BYTES: Final = 4096

_BROKERS: Final[dict[str, DeadReason]] = {"delivery_limit": "failed", "expired": "expired"}
"""What we call it where the broker itself gave a message up."""

_REASONS: Final = frozenset(get_args(DeadReason))


@dataclass(slots=True)
class _Look:
    """A connection, and how many letters are to be there when it is done."""

    line: Line
    stay: int


class DeadLetters:
    """The port `DeadLetterBox`. Each call has a connection of its own; those of this process come one behind the other.

    Whatever is looked at stays, in its order; while it is looked at nobody else sees it. A message that cannot be
    decoded ends the connection, and hides those behind it until it is removed with the broker's own tools.
    """

    def __init__(self, url: str, names: Names, patience: Patience) -> None:
        self._url = url
        self._names = names
        self._patience = patience
        self._turn = asyncio.Lock()

    async def list(self, limit: int) -> Sequence[DeadLetter]:
        """The oldest ones, so many at most, and MAX_LOOKED_AT of them."""
        async with self._looking() as look, aclosing(self._letters(look, limit)) as letters:
            return [letter async for _, letter in letters]

    async def redrive(self, by: str, *, reason: DeadReason | None = None, letter_id: str | None = None) -> int:
        """Send again, as new messages, those with this reason or this id, or all; answers how many.

        With an id one alone, though copies share it. Of those that are there now, MAX_LOOKED_AT at most; one that dies
        again meanwhile is not sent again. Each is published and confirmed before it is removed: where that fails it is
        there twice. One that cannot be copied is told in the logs, and stays.
        """
        sent = 0
        outlet = Outlet(self._url, self._names, self._patience)
        try:
            async with self._looking() as look, aclosing(self._letters(look, MAX_LOOKED_AT)) as letters:
                async for message, letter in letters:
                    if reason not in (None, letter.reason) or letter_id not in (None, letter.id):
                        continue
                    try:
                        await outlet.send(copy_of(message, {}), self._names.exchange)
                    except BrokerUnavailable:
                        raise
                    except Exception:
                        # The edge of one letter: with headers of a kind that the library reads and does not write.
                        log.exception("dead_letter_not_copied", by=by, reason=letter.reason, letter_id=letter.id)
                        continue
                    async with asking(self._patience.call):
                        await look.line.raw.basic_ack(message.delivery_tag or 0)
                    sent, look.stay = sent + 1, look.stay - 1
                    log.info("dead_letter_redriven", by=by, reason=letter.reason, message_id=letter.message_id)
                    if letter_id is not None:
                        break
        finally:
            await outlet.close()
        return sent

    @asynccontextmanager
    async def _looking(self) -> AsyncGenerator[_Look]:
        """A look at those that are there now; whatever is not removed is back at the end of the block."""
        async with asking(self._patience.connect):
            await self._turn.acquire()
        try:
            async with asking(self._patience.connect):
                line = await open_line(self._url, confirms=False)
            try:
                async with asking(self._patience.connect):
                    await declare(line, self._names)
                    look = _Look(line, (await depths(line, self._names)).dead)
                yield look
                await self._put_back(look)
            finally:
                await line.close()
        finally:
            self._turn.release()

    async def _put_back(self, look: _Look) -> None:
        """The broker takes them back in its own time: the next look would not find them."""
        async with asking(self._patience.call):
            await look.line.raw.basic_nack(0, multiple=True, requeue=True)
            with suppress(TimeoutError):
                async with asyncio.timeout(PUT_BACK_SECONDS):
                    while (await depths(look.line, self._names)).dead < look.stay:  # noqa: ASYNC110 - the broker's
                        await asyncio.sleep(PUT_BACK_SECONDS / 50)

    async def _letters(self, look: _Look, limit: int) -> AsyncGenerator[tuple[DeliveredMessage, DeadLetter]]:
        for _ in range(min(look.stay, limit, MAX_LOOKED_AT)):
            async with asking(self._patience.call):
                message = await look.line.raw.basic_get(self._names.dead)
            if message.delivery_tag is None:
                return
            yield message, _letter(message)


def _letter(message: DeliveredMessage) -> DeadLetter:
    told = message.header.properties
    death = _last_death(message)
    ours, detail, ms = header(message, REASON), header(message, DETAIL), whole_number(message, DIED_AT)
    is_known = isinstance(ours, str) and ours in _REASONS  # its sender may have set anything
    reason: DeadReason = ours if is_known else _BROKERS.get(str(death.get("reason")), "other")
    died_at = death.get("time")
    return DeadLetter(
        id=_id_of(message),
        reason=reason,
        detail=detail if isinstance(detail, str) else "",
        died_at=_from_ms(ms) if ms is not None else died_at if isinstance(died_at, datetime) else None,
        message_id=told.message_id or None,
        app_id=told.app_id or None,
        size=len(message.body),
        body=message.body[:SHOWN_BYTES],
    )


def _last_death(message: DeliveredMessage) -> dict[str, Any]:
    """What the broker says of it; nothing where we were it who gave it up."""
    deaths = header(message, "x-death")
    last = deaths[0] if isinstance(deaths, list) and deaths else None
    return last if isinstance(last, dict) else {}


def _id_of(message: DeliveredMessage) -> str:
    told = message.header.properties
    named = f"{told.message_id or ''}\n{told.app_id or ''}\n".encode()
    return hashlib.sha256(named + message.body).hexdigest()[:16]


def _from_ms(ms: int) -> datetime | None:
    try:
        return datetime.fromtimestamp(ms / 1000, UTC)
    except (OverflowError, OSError, ValueError):
        return None
