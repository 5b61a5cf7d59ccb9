"""API keys, and the key of the stream tokens, in memory: for embedding and for tests."""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from service.model.api_key import ApiKey, KeyId, NewKey


def _now() -> datetime:
    return datetime.now(UTC)


class MemoryKeys:
    """The ports `KeyStore` and `TokenKey`. Keys stay for as long as this does."""

    def __init__(self, now: Callable[[], datetime] = _now) -> None:
        self._now = now
        self._keys: dict[KeyId, ApiKey] = {}
        self._token_key = secrets.token_bytes(32)

    async def create(self, key: NewKey) -> ApiKey:
        now = self._now()
        expires_at = None if key.lifetime_seconds is None else now + timedelta(seconds=key.lifetime_seconds)
        kept = ApiKey(key.id, key.secret_sha256, key.owner, key.scopes, key.name, now, expires_at, None)
        self._keys[key.id] = kept
        return kept

    async def find(self, key_id: KeyId) -> ApiKey | None:
        return self._keys.get(key_id)

    async def list(self, limit: int) -> Sequence[ApiKey]:
        return sorted(self._keys.values(), key=lambda key: (key.created_at, key.id), reverse=True)[:limit]

    async def revoke(self, key_id: KeyId) -> ApiKey | None:
        key = self._keys.get(key_id)
        if key is not None and key.revoked_at is None:
            key = self._keys[key_id] = replace(key, revoked_at=self._now())
        return key

    async def token_key(self) -> bytes:
        return self._token_key
