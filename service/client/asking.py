"""One request and its answer, or a list page by page."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final
from urllib.parse import quote

import aiohttp
import orjson
from yarl import URL

from service.client.answers import object_of, objects_in, refusal_of
from service.client.errors import NotUnderstood, Unreachable
from service.model.errors import InvalidInput, PlayheadError

REQUEST_SECONDS: Final = 30.0
"""So long an answer that is no stream may take."""

PAGE_ENTRIES: Final = 100
"""So many entries of a list are asked for at once, at most."""

NOTHING: Final[Mapping[str, str]] = {}


class Asking:
    """Asks the service at `url`. Every call raises Refused, Unreachable or NotUnderstood, and asks once."""

    def __init__(self, http: aiohttp.ClientSession, url: str, silence_seconds: float) -> None:
        self.http = http
        self._url = url
        self._silence_seconds = silence_seconds

    def at(self, *path: str) -> URL:
        """A route of the service; what stands in an id stays in its place of the path."""
        quoted = "/".join(quote(part, safe="", errors="replace").replace(".", "%2E") for part in path)
        return URL(f"{self._url}/{quoted}", encoded=True)

    async def object(
        self,
        method: str,
        *path: str,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] = NOTHING,
        query: Mapping[str, str] = NOTHING,
        seconds: float = REQUEST_SECONDS,
        takes: int | None = None,
    ) -> dict[str, Any]:
        """The JSON object that is answered."""
        asked = self.answered(method, *path, body=body, headers=headers, query=query, seconds=seconds, takes=takes)
        async with asked as response:
            return await object_of(response)

    async def listed(self, name: str, query: Mapping[str, str], limit: int | None) -> AsyncGenerator[dict[str, Any]]:
        """A list's entries, so many or all, over as many pages as it takes, each before the one that was read."""
        before, left = None, limit
        while left is None or left > 0:
            count = PAGE_ENTRIES if left is None else min(left, PAGE_ENTRIES)
            page = {**query, "limit": str(count)} | ({} if before is None else {"before": str(before)})
            answer = await self.object("GET", name, query=page)
            entries = objects_in(answer, name)
            for entry in entries:
                yield entry
            if answer.get("earlier") is None:
                return
            before = _before(answer["earlier"], before)
            left = None if left is None else left - len(entries)

    @asynccontextmanager
    async def answered(
        self,
        method: str,
        *path: str,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] = NOTHING,
        query: Mapping[str, str] = NOTHING,
        seconds: float | None = REQUEST_SECONDS,
        takes: int | None = None,
    ) -> AsyncGenerator[aiohttp.ClientResponse]:
        """The answer, where it is what was asked for or has the status that is taken too; read within `seconds`.

        With None for these only its head is waited for, as long as a connection may be silent.
        """
        more = {} if body is None else {"Content-Type": "application/json"}
        try:
            async with (
                asyncio.timeout(self._silence_seconds if seconds is None else seconds) as deadline,
                self.http.request(
                    method,
                    self.at(*path).update_query(query),
                    data=None if body is None else _json(body),
                    headers={**more, **headers},
                    allow_redirects=False,
                ) as response,
            ):
                if not 200 <= response.status < 300 and response.status != takes:
                    raise await _reason(response)
                if seconds is None:
                    deadline.reschedule(None)
                yield response
        except TimeoutError as error:
            raise Unreachable("The service does not answer in time.") from error
        except (aiohttp.ClientError, OSError) as error:
            raise Unreachable("The service cannot be reached.") from error


async def _reason(response: aiohttp.ClientResponse) -> PlayheadError:
    if response.status >= 500 or response.status == 429:
        return Unreachable(f"The service answers {response.status}.")
    return await refusal_of(response)


def _before(earlier: object, before: int | None) -> int:
    """Where the page before begins, of the path that a list names. Raises NotUnderstood where it goes nowhere."""
    try:
        place = int(URL(str(earlier)).query["before"])
    except (KeyError, ValueError):
        place = None
    if place is None or (before is not None and place >= before):
        raise NotUnderstood("What answers names a page that is none.")
    return place


def _json(body: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(body)
    except orjson.JSONEncodeError:
        raise InvalidInput("The message holds something that JSON cannot say.") from None
