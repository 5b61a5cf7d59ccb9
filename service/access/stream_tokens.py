"""Stream tokens: for `EventSource`, which cannot send headers. Each opens one task's stream, for minutes."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import jwt

from service.access.owners import owner_id
from service.access.ports import TokenKey
from service.access.tokens import claims_of, require_token
from service.model.caller import Caller
from service.model.errors import Unauthenticated
from service.model.ids import TaskId

LIFETIME_SECONDS: Final = 300
AUDIENCE: Final = "playhead-stream"
ALGORITHM: Final = "HS256"


@dataclass(frozen=True, slots=True)
class StreamToken:
    """A token, and until when it opens a stream. A stream that is open then stays open."""

    text: str
    expires_at: datetime


class StreamTokens:
    """Made and judged here, by any process over the same database. `now` is the time of day in UTC."""

    def __init__(self, source: TokenKey, now: Callable[[], datetime]) -> None:
        self._source = source
        self._now = now
        self._key: bytes | None = None

    async def mint(self, caller: Caller, task_id: TaskId) -> StreamToken:
        """A token with which this caller may read the stream of this task, which is known to be theirs.

        Raises DatabaseUnavailable.
        """
        now = self._now().replace(microsecond=0)
        expires_at = now + timedelta(seconds=LIFETIME_SECONDS)
        claims: dict[str, Any] = {"aud": AUDIENCE, "iat": now, "exp": expires_at, "task": task_id}
        claims |= {} if caller.owner is None else {"sub": caller.owner}
        claims |= {"local": True} if caller.is_local else {}
        return StreamToken(jwt.encode(claims, await self._signing_key(), ALGORITHM), expires_at)

    async def caller(self, text: str) -> tuple[Caller, TaskId]:
        """Who shows this token, and the task whose stream it is for. Raises Unauthenticated, DatabaseUnavailable."""
        require_token(text)
        required = ("exp", "iat", "aud", "task")
        claims = claims_of(text, await self._signing_key(), ALGORITHM, required, audience=AUDIENCE)
        owner, task = owner_id(claims.get("sub")), claims["task"]
        if (owner is None and "sub" in claims) or not isinstance(task, str):
            raise Unauthenticated("malformed_token")
        return Caller("stream token", owner, frozenset({"read"}), is_local=claims.get("local") is True), TaskId(task)

    async def _signing_key(self) -> bytes:
        """Read once: it stays the same for as long as the database is there."""
        if self._key is None:
            self._key = await self._source.token_key()
        return self._key
