"""Stream tokens: for one task, for minutes, for whoever it was made for."""

from datetime import UTC, datetime, timedelta

import jwt
import pytest

from service.access.callers import LOCAL
from service.access.stream_tokens import AUDIENCE, LIFETIME_SECONDS, StreamTokens
from service.adapters.memory_keys import MemoryKeys
from service.model.caller import Caller, Own
from service.model.errors import DatabaseUnavailable, Unauthenticated
from service.model.ids import OwnerId, TaskId
from tests.access.issuer import by_hand

TASK = TaskId("01890000-0000-7000-8000-000000000000")
ANN = Caller("user", OwnerId("ann"), frozenset({"read", "write"}))


def tokens(store: MemoryKeys, moved_seconds: float = 0) -> StreamTokens:
    return StreamTokens(store, lambda: datetime.now(UTC) + timedelta(seconds=moved_seconds))


@pytest.mark.parametrize("caller", [ANN, LOCAL, Caller("key 1", None, frozenset({"read", "ops"}))])
async def test_it_is_the_caller_s_for_one_task_and_may_read(caller: Caller) -> None:
    store, now = MemoryKeys(), datetime.now(UTC).replace(microsecond=0)
    token = await tokens(store).mint(caller, TASK)
    shown, task_id = await tokens(store).caller(token.text)
    assert (shown.owner, shown.scopes, shown.is_local, task_id) == (caller.owner, {"read"}, caller.is_local, TASK)
    assert timedelta(0) <= token.expires_at - timedelta(seconds=LIFETIME_SECONDS) - now < timedelta(seconds=30)


async def test_pitfall_51_one_that_nobody_owns_reaches_nobody_s() -> None:
    store = MemoryKeys()
    token = await tokens(store).mint(Caller("key 1", None, frozenset({"read", "ops"})), TASK)
    shown, _ = await tokens(store).caller(token.text)
    assert shown.reach(frozenset({"read", "ops"})) == Own(None)


async def test_it_is_good_for_minutes() -> None:
    store = MemoryKeys()
    judge = tokens(store)
    assert await judge.caller((await tokens(store, 60 - LIFETIME_SECONDS).mint(ANN, TASK)).text)
    with pytest.raises(Unauthenticated):
        await judge.caller((await tokens(store, -40 - LIFETIME_SECONDS).mint(ANN, TASK)).text)


async def test_one_of_another_database_is_refused() -> None:
    token = await tokens(MemoryKeys()).mint(ANN, TASK)
    with pytest.raises(Unauthenticated):
        await tokens(MemoryKeys()).caller(token.text)


async def test_what_is_signed_so_and_says_something_else_is_refused() -> None:
    store = MemoryKeys()
    key, now = await store.token_key(), datetime.now(UTC)
    good = {"aud": AUDIENCE, "iat": now, "exp": now + timedelta(seconds=60), "task": TASK, "sub": "ann"}
    assert await tokens(store).caller(jwt.encode(good, key, "HS256"))
    for other in ({"aud": "playhead"}, {"task": 7}, {"task": None}, {"sub": ""}, {"sub": "a\n"}, {"exp": None}):
        with pytest.raises(Unauthenticated):
            await tokens(store).caller(jwt.encode(good | other, key, "HS256"))
    unsigned = by_hand({"alg": "none"}, {"aud": AUDIENCE, "task": TASK, "exp": 9_999_999_999, "iat": 1})
    for text in (unsigned, "", "x", "\udcff", "a" * 9000):
        with pytest.raises(Unauthenticated):
            await tokens(store).caller(text)


async def test_the_key_is_read_once_and_again_where_that_failed() -> None:
    class Away(MemoryKeys):
        asked, is_away = 0, True

        async def token_key(self) -> bytes:
            self.asked += 1
            if self.is_away:
                raise DatabaseUnavailable
            return await super().token_key()

    store = Away()
    judge = tokens(store)
    with pytest.raises(DatabaseUnavailable):
        await judge.mint(ANN, TASK)
    store.is_away = False
    for _ in range(3):
        await judge.caller((await judge.mint(ANN, TASK)).text)
    assert store.asked == 2
