"""API keys: `ph_<id>_<secret>`. The id is public; of the secret only its SHA-256 is kept."""

import hmac
import re
import secrets
from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Final

from service.access.ports import KeyStore
from service.model.api_key import ApiKey, KeyId, NewKey
from service.model.caller import Caller, Scope
from service.model.errors import Unauthenticated
from service.model.ids import OwnerId
from service.registry.flights import Flights

REMEMBERED_SECONDS: Final = 5.0
"""A key that was looked up is not looked up again for so long: a key that is revoked stops working within this."""

REMEMBERED_KEYS: Final = 1024
"""So many are remembered at once; beyond that the one that was looked up first is looked up again."""

PREFIX: Final = "ph_"
_KEY: Final = re.compile(r"ph_([0-9a-f]{12})_([A-Za-z0-9_-]{43})", re.ASCII)
_NOBODYS: Final = bytes(32)


def mint(
    owner: OwnerId | None, scopes: Collection[Scope], name: str, lifetime_seconds: int | None
) -> tuple[str, NewKey]:
    """A new key: its text, which nobody can find out later, and what is to be kept of it."""
    key_id, secret = KeyId(secrets.token_hex(6)), secrets.token_urlsafe(32)
    kept = NewKey(key_id, _hashed(secret), owner, frozenset(scopes), name, lifetime_seconds)
    return f"{PREFIX}{key_id}_{secret}", kept


def _hashed(secret: str) -> bytes:
    return sha256(secret.encode()).digest()


@dataclass(frozen=True, slots=True)
class _Remembered:
    key: ApiKey
    asked_at: float


class Keys:
    """Whose a key is.

    `now` is the time of day in UTC; `monotonic`, in seconds, only goes forward. Keys that there are not are not
    remembered: who tries many drives out none of those that there are.
    """

    def __init__(self, store: KeyStore, now: Callable[[], datetime], monotonic: Callable[[], float]) -> None:
        self._store = store
        self._now = now
        self._monotonic = monotonic
        self._remembered: OrderedDict[KeyId, _Remembered] = OrderedDict()
        self._flights: Flights[KeyId, ApiKey | None] = Flights()

    async def caller(self, text: str) -> Caller:
        """Who shows this key. Raises Unauthenticated; DatabaseUnavailable where nobody can say."""
        shown = _KEY.fullmatch(text)
        if shown is None:
            raise Unauthenticated("malformed_key")
        key = await self._find(KeyId(shown[1]))
        # The same work whether there is such a key or not, so that the time it takes does not say which ids there are.
        is_right = hmac.compare_digest(_hashed(shown[2]), _NOBODYS if key is None else key.secret_sha256)
        if key is None or not is_right:
            raise Unauthenticated("unknown_key")
        if key.revoked_at is not None:
            raise Unauthenticated("revoked_key")
        if key.expires_at is not None and key.expires_at <= self._now():
            raise Unauthenticated("expired_key")
        return Caller(f"key {key.id}", key.owner, key.scopes)

    async def _find(self, key_id: KeyId) -> ApiKey | None:
        remembered = self._remembered.get(key_id)
        if remembered is not None and self._monotonic() - remembered.asked_at < REMEMBERED_SECONDS:
            return remembered.key
        return await self._flights.share(key_id, lambda: self._ask(key_id))

    async def _ask(self, key_id: KeyId) -> ApiKey | None:
        asked_at = self._monotonic()
        key = await self._store.find(key_id)
        self._remembered.pop(key_id, None)
        if key is not None:
            self._remembered[key_id] = _Remembered(key, asked_at)
            if len(self._remembered) > REMEMBERED_KEYS:
                self._remembered.popitem(last=False)
        return key
