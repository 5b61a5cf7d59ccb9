"""API keys: whose they are, how they are compared, and for how long what was looked up is believed."""

import asyncio
import sys
from collections import Counter
from datetime import UTC, datetime, timedelta
from types import FrameType

import pytest

from service.access.keys import REMEMBERED_KEYS, REMEMBERED_SECONDS, Keys, mint
from service.adapters.memory_keys import MemoryKeys
from service.model.api_key import ApiKey, KeyId
from service.model.caller import EVERYONES, Caller, Own, Scope
from service.model.errors import DatabaseUnavailable, Unauthenticated
from service.model.ids import OwnerId

ANN = OwnerId("ann")


class Asked(MemoryKeys):
    """Counts how often it is asked for a key; may be away."""

    def __init__(self) -> None:
        super().__init__(lambda: self.time)
        self.time = datetime(2026, 1, 1, tzinfo=UTC)
        self.finds = 0
        self.is_away = False

    async def find(self, key_id: KeyId) -> ApiKey | None:
        self.finds += 1
        await asyncio.sleep(0)
        if self.is_away:
            raise DatabaseUnavailable
        return await super().find(key_id)

    def keys(self) -> Keys:
        return Keys(self, lambda: self.time, self.seconds)

    def seconds(self) -> float:
        return self.time.timestamp()

    def go_on(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)

    async def made(
        self, owner: OwnerId | None = ANN, *scopes: Scope, lifetime_seconds: int | None = None
    ) -> tuple[str, KeyId]:
        text, new = mint(owner, scopes or ("read",), "", lifetime_seconds)
        return text, (await self.create(new)).id


@pytest.fixture
def store() -> Asked:
    return Asked()


async def refused(keys: Keys, text: str) -> str:
    with pytest.raises(Unauthenticated) as raised:
        await keys.caller(text)
    return raised.value.reason


async def test_a_key_is_its_owner_s_with_its_scopes(store: Asked) -> None:
    text, key_id = await store.made(ANN, "read", "write")
    assert text.startswith(f"ph_{key_id}_")
    assert await store.keys().caller(text) == Caller(f"key {key_id}", ANN, frozenset({"read", "write"}))


async def test_pitfall_40_the_same_work_is_done_for_a_key_that_there_is_not(store: Asked) -> None:
    """Compared in constant time, and compared in any case."""
    text, _ = await store.made()
    other, _ = mint(ANN, ["read"], "", None)
    wrong_secret = text[:16] + other[16:]
    work: list[Counter[str]] = []
    for shown in (wrong_secret, other):
        called: Counter[str] = Counter()

        def note(frame: FrameType, event: str, argument: object, called: Counter[str] = called) -> None:
            if event == "c_call":
                called[getattr(argument, "__name__", "")] += 1

        keys = store.keys()
        sys.setprofile(note)
        try:
            assert await refused(keys, shown) == "unknown_key"
        finally:
            sys.setprofile(None)
        work.append(Counter({name: called[name] for name in ("compare_digest", "_compare_digest", "openssl_sha256")}))
    assert work[0] == work[1]
    assert work[0].total() == 2


async def test_pitfall_40_of_a_secret_only_a_hash_is_kept(store: Asked) -> None:
    text, _ = await store.made()
    (kept,) = await store.list(10)
    assert text[16:] not in repr(kept)
    assert len(text[16:]) == 43  # 256 bits
    assert len({mint(ANN, ["read"], "", None)[0] for _ in range(100)}) == 100


WRONG = [
    "",
    "ph_",
    "ph__",
    "x",
    "ph_0123456789ab",
    "ph_0123456789ab_",
    "ph_0123456789ab_" + "x" * 42,
    "ph_%_" + "x" * 43,
]


@pytest.mark.parametrize("text", [*WRONG, "ph_0123456789ab_" + "x" * 44, "ph_0123456789aB_" + "x" * 43, "\udcff" * 59])
async def test_what_is_no_key_is_refused_unasked(store: Asked, text: str) -> None:
    await store.made()
    assert await refused(store.keys(), text) == "malformed_key"
    assert store.finds == 0


async def test_a_key_but_for_one_character_is_refused(store: Asked) -> None:
    text, _ = await store.made()
    keys = store.keys()
    for place in range(3, len(text)):
        if text[place] != "_" or place > 16:
            assert await refused(keys, f"{text[:place]}{'0' if text[place] != '0' else '1'}{text[place + 1 :]}")


async def test_an_expired_key_is_refused_from_that_moment_on(store: Asked) -> None:
    text, _ = await store.made(lifetime_seconds=60)
    keys = store.keys()
    store.go_on(59.9)
    assert await keys.caller(text)
    store.go_on(0.1)
    assert await refused(keys, text) == "expired_key"


async def test_a_revoked_key_stops_working_within_seconds(store: Asked) -> None:
    text, key_id = await store.made()
    keys = store.keys()
    assert await keys.caller(text)
    await store.revoke(key_id)
    store.go_on(REMEMBERED_SECONDS - 0.1)
    assert await keys.caller(text)
    store.go_on(0.1)
    assert await refused(keys, text) == "revoked_key"
    assert await refused(store.keys(), text) == "revoked_key"


async def test_a_burst_of_requests_is_one_query(store: Asked) -> None:
    text, _ = await store.made()
    keys = store.keys()
    await asyncio.gather(*(keys.caller(text) for _ in range(50)))
    for _ in range(50):
        await keys.caller(text)
    assert store.finds == 1
    store.go_on(REMEMBERED_SECONDS)
    await keys.caller(text)
    assert store.finds == 2


async def test_no_more_keys_are_remembered_than_said_and_none_that_there_are_not(store: Asked) -> None:
    first, _ = await store.made()
    keys = store.keys()
    await keys.caller(first)
    for _ in range(2 * REMEMBERED_KEYS):
        await refused(keys, mint(ANN, ["read"], "", None)[0])
    finds = store.finds
    await keys.caller(first)
    assert store.finds == finds
    for _ in range(REMEMBERED_KEYS):
        await keys.caller((await store.made())[0])
    finds = store.finds
    await keys.caller(first)
    assert store.finds == finds + 1


async def test_while_the_database_is_away_nobody_is_judged_but_who_was_just_seen(store: Asked) -> None:
    text, _ = await store.made()
    keys = store.keys()
    await keys.caller(text)
    store.is_away = True
    assert await keys.caller(text)
    store.go_on(REMEMBERED_SECONDS)
    for _ in range(2):
        with pytest.raises(DatabaseUnavailable):
            await keys.caller(text)
    store.is_away = False
    assert await keys.caller(text)


async def test_pitfall_51_a_key_without_an_owner_is_nobody_s_not_everybody_s(store: Asked) -> None:
    keys = store.keys()
    plain = await keys.caller((await store.made(None, "read", "write"))[0])
    ops = await keys.caller((await store.made(None, "ops"))[0])
    owned = await keys.caller((await store.made(ANN, "ops"))[0])
    over = frozenset[Scope]({"read", "ops"})
    assert (plain.reach(over), ops.reach(over), owned.reach(over)) == (Own(None), EVERYONES, Own(ANN))
    assert ops.reach(frozenset({"read"})) == Own(None)
