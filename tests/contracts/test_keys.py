"""The ports `KeyStore` and `TokenKey`, wherever keys are kept."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Protocol

import pytest

from service.access.ports import KeyStore, TokenKey
from service.adapters.memory_keys import MemoryKeys
from service.adapters.postgres_keys import PostgresKeys
from service.model.api_key import KeyId, NewKey
from service.model.caller import SCOPES
from service.model.ids import OwnerId
from tests.sessions.databases import emptied


class Store(KeyStore, TokenKey, Protocol):
    """All that a database knows of keys."""


@pytest.fixture
async def store(kept_at: str | None) -> AsyncIterator[Store]:
    if kept_at is None:
        yield MemoryKeys()
        return
    async with emptied(kept_at) as database:
        await database.fetch("DELETE FROM api_keys")
        yield PostgresKeys(database)


def new(number: int, owner: str | None = "ann", lifetime_seconds: int | None = None) -> NewKey:
    whose = None if owner is None else OwnerId(owner)
    return NewKey(
        KeyId(f"{number:012x}"), bytes([number]) * 32, whose, frozenset({"read", "ops"}), "a name", lifetime_seconds
    )


async def test_a_key_is_found_as_it_was_made(store: Store) -> None:
    made = await store.create(new(1))
    assert (made.id, made.secret_sha256, made.owner, made.scopes, made.name, made.expires_at, made.revoked_at) == (
        KeyId("000000000001"),
        b"\x01" * 32,
        "ann",
        {"read", "ops"},
        "a name",
        None,
        None,
    )
    assert made.created_at.tzinfo is not None
    assert await store.find(made.id) == made


async def test_a_key_of_the_service_has_no_owner(store: Store) -> None:
    made = await store.create(new(1, owner=None))
    assert made.owner is None
    assert await store.find(made.id) == made


async def test_every_scope_is_kept(store: Store) -> None:
    key = NewKey(KeyId("00000000000a"), bytes(32), None, frozenset(SCOPES), "", None)
    assert (await store.create(key)).scopes == set(SCOPES)


@pytest.mark.parametrize("owner", ["x" * 255, "\u20ac" * 255, "a b", "' OR 1=1 --", "\U0001f680"])
async def test_an_owner_may_be_any_text(store: Store, owner: str) -> None:
    made = await store.create(new(1, owner))
    found = await store.find(made.id)
    assert found is not None
    assert found.owner == owner


async def test_it_expires_so_long_after_it_was_made(store: Store) -> None:
    made = await store.create(new(1, lifetime_seconds=90))
    assert made.expires_at == made.created_at + timedelta(seconds=90)


@pytest.mark.parametrize("text", ["", "x", "%", "*", "'; --", "000000000002", "0" * 1000])
async def test_there_is_no_key_that_was_not_made(store: Store, text: str) -> None:
    await store.create(new(1))
    assert await store.find(KeyId(text)) is None
    assert await store.revoke(KeyId(text)) is None
    assert [key.id for key in await store.list(10)] == ["000000000001"]


async def test_a_revoked_key_stays_and_a_repeat_changes_nothing(store: Store) -> None:
    made, other = await store.create(new(1)), await store.create(new(2))
    revoked = await store.revoke(made.id)
    assert revoked is not None
    assert revoked.revoked_at is not None
    assert revoked.revoked_at >= made.created_at
    assert await store.revoke(made.id) == revoked
    assert await store.find(made.id) == revoked
    assert await store.find(other.id) == other


async def test_the_newest_are_listed_first_and_no_more_than_asked_for(store: Store) -> None:
    made = [await store.create(new(number, None)) for number in range(1, 6)]
    assert await store.list(10) == made[::-1]
    assert await store.list(2) == made[:2:-1]


async def test_the_key_of_the_stream_tokens_stays(store: Store) -> None:
    key = await store.token_key()
    assert len(key) == 32
    assert len(set(key)) > 8
    assert await store.token_key() == key


async def test_each_database_signs_with_a_key_of_its_own(dsn: str) -> None:
    async with emptied(dsn) as database:
        (row,) = await database.fetch("SELECT database_id, token_key FROM schema_version")
        key = bytes(row["token_key"])
        assert row["database_id"].bytes not in (key[:16], key[16:])
        await database.fetch("UPDATE schema_version SET token_key = DEFAULT")
        assert await PostgresKeys(database).token_key() != key
