"""The keys of an issuer, as its JWKS document (RFC 7517) has them."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import jwt
import orjson
import structlog

from service.model.errors import IssuerUnavailable, cause_of

log = structlog.get_logger()

FRESH_SECONDS: Final = 300.0
"""After this the document is fetched again: a key that the issuer took back is refused then."""

REST_SECONDS: Final = 30.0
"""The document is asked for once in so long at most, whatever comes."""

MAX_KEYS: Final = 100

ALGORITHMS: Final = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}
)
"""Of these each key has one. All are asymmetric: with another, what everybody may know would sign tokens."""


def keys_in(document: bytes) -> Mapping[str | None, jwt.PyJWK]:
    """The document's keys by their ids; a lone key also without one. What is not for signing so is left out.

    Raises ValueError where it is no such document, or has no such key, or more than MAX_KEYS.
    """
    plain = orjson.loads(document)
    listed = plain.get("keys") if isinstance(plain, dict) else None
    if not isinstance(listed, list) or len(listed) > MAX_KEYS:
        raise ValueError("no list of keys that is short enough")
    keys = [key for one in listed if (key := _key(one)) is not None]
    if not keys:
        raise ValueError("no key that can be used")
    named: dict[str | None, jwt.PyJWK] = {key.key_id: key for key in keys if key.key_id is not None}
    return named | ({None: keys[0]} if len(keys) == 1 else {})


def _key(one: object) -> jwt.PyJWK | None:
    if not isinstance(one, dict) or one.get("use", "sig") != "sig":
        return None
    if not isinstance(one.get("kid"), str | None) or str(one.get("alg", "RS256")) not in ALGORITHMS:
        return None
    try:
        key = jwt.PyJWK(one)
    except (jwt.PyJWTError, TypeError, ValueError, KeyError):
        return None
    return key if key.algorithm_name in ALGORITHMS else None


class Jwks:
    """The issuer's keys, remembered; `load` fetches the document, or raises IssuerUnavailable.

    While it cannot be fetched, the keys that were there go on; keys that were never there are IssuerUnavailable.
    """

    def __init__(self, load: Callable[[], Awaitable[bytes]], monotonic: Callable[[], float]) -> None:
        self._load = load
        self._monotonic = monotonic
        self._keys: Mapping[str | None, jwt.PyJWK] = {}
        self._loaded_at = float("-inf")
        self._tried_at = float("-inf")
        self._fetching = asyncio.Lock()

    async def key(self, key_id: str | None) -> jwt.PyJWK | None:
        """The key with this id, or a lone key that has none; None where there is no such key.

        The document is fetched again where it is old or has no such key. Who comes meanwhile does not wait for that
        where the key is known.
        """
        if key_id not in self._keys or (self._is_old() and not self._fetching.locked()):
            await self._refresh()
        key = self._keys.get(key_id)
        if key is None and self._loaded_at < self._tried_at:
            raise IssuerUnavailable
        return key

    def _is_old(self) -> bool:
        return self._monotonic() - self._loaded_at >= FRESH_SECONDS

    async def _refresh(self) -> None:
        async with self._fetching:
            if self._monotonic() - self._tried_at < REST_SECONDS:
                return
            was_away = self._loaded_at < self._tried_at
            try:
                self._keys = keys_in(await self._load())
                self._loaded_at = self._tried_at = self._monotonic()
            except (IssuerUnavailable, ValueError) as error:
                self._tried_at = self._monotonic()
                if not was_away:
                    log.warning("issuer_keys_away", cause=cause_of(error))
                return
        if was_away:
            log.info("issuer_keys_are_back")
