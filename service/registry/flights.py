"""Asking once for all who want the same at the same time."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from service.model.errors import PlayheadError

_Key = TypeVar("_Key", bound=Hashable)
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class _Landed(Generic[_Result]):
    result: _Result


class Flights(Generic[_Key, _Result]):
    """Questions that are under way."""

    def __init__(self) -> None:
        self._under_way: dict[_Key, asyncio.Future[_Landed[_Result] | PlayheadError | None]] = {}

    async def share(self, key: _Key, ask: Callable[[], Awaitable[_Result]]) -> _Result:
        """What `ask` answers, or raises, for everyone who comes with this key until then.

        Who asks for the others may be cancelled: then one of them asks.
        """
        while (flight := self._under_way.get(key)) is not None:
            landed = await asyncio.shield(flight)
            if isinstance(landed, PlayheadError):
                raise type(landed) from landed
            if landed is not None:
                return landed.result
        flight = self._under_way[key] = asyncio.get_running_loop().create_future()
        landed = None
        try:
            result = await ask()
            landed = _Landed(result)
            return result
        except PlayheadError as error:
            landed = error
            raise
        finally:
            del self._under_way[key]
            flight.set_result(landed)
