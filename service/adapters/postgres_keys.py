"""API keys, and the key of the stream tokens, in PostgreSQL."""

from collections.abc import Sequence
from typing import Final

import asyncpg

from service.adapters.postgres import Database, statements
from service.model.api_key import ApiKey, KeyId, NewKey
from service.model.caller import SCOPES

_SQL: Final = statements("keys")


class PostgresKeys:
    """The ports `KeyStore` and `TokenKey`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, key: NewKey) -> ApiKey:
        scopes = sorted(key.scopes)
        fields = (key.id, key.secret_sha256, key.owner, scopes, key.name, key.lifetime_seconds)
        (row,) = await self._database.fetch(_SQL["create"], *fields)
        return _key_from(row)

    async def find(self, key_id: KeyId) -> ApiKey | None:
        row = await self._database.fetchrow(_SQL["find"], key_id)
        return None if row is None else _key_from(row)

    async def list(self, limit: int) -> Sequence[ApiKey]:
        return [_key_from(row) for row in await self._database.fetch(_SQL["list"], limit)]

    async def revoke(self, key_id: KeyId) -> ApiKey | None:
        row = await self._database.fetchrow(_SQL["revoke"], key_id)
        return None if row is None else _key_from(row)

    async def token_key(self) -> bytes:
        ((key,),) = await self._database.fetch(_SQL["token_key"])
        return bytes(key)


def _key_from(row: asyncpg.Record) -> ApiKey:
    kept = frozenset(row["scopes"])
    return ApiKey(
        KeyId(row["id"]),
        row["secret_sha256"],
        row["owner"],
        frozenset(scope for scope in SCOPES if scope in kept),
        row["name"],
        row["created_at"],
        row["expires_at"],
        row["revoked_at"],
    )
