"""The watch over the stores in virtual time: when it looks, what it finds, what it tells."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
import structlog

from service.model.errors import LogUnavailable
from service.registry.watch import AWAY_SECONDS, PROBE_SECONDS, WATCH_SECONDS, StoreWatch
from tests.races.loop import ShuffledLoop

_MIDNIGHT = datetime(2026, 1, 1, tzinfo=UTC)
_SLOWEST = PROBE_SECONDS - 0.1


class Store:
    """One that is there, but for the times at which it is `away` or `silent`."""

    def __init__(self, loop: ShuffledLoop) -> None:
        self._loop = loop
        self.asked_at: list[float] = []
        self.trouble = ""

    async def ping(self) -> None:
        self.asked_at.append(self._loop.time())
        if self.trouble == "away":
            raise LogUnavailable
        if self.trouble == "broken":
            raise RuntimeError("a mistake of ours")
        await asyncio.sleep(1000 if self.trouble == "silent" else _SLOWEST)


@pytest.fixture(params=range(3))
def loop(request: pytest.FixtureRequest) -> Iterator[ShuffledLoop]:
    made = ShuffledLoop(request.param)
    yield made
    assert not asyncio.all_tasks(made)
    made.close()


@pytest.mark.parametrize("trouble", ["away", "silent"])
def test_a_store_that_is_away_is_known_since_it_was_asked_and_asked_more_often(
    loop: ShuffledLoop, trouble: str
) -> None:
    store, other = Store(loop), Store(loop)

    async def watch() -> None:
        stores = StoreWatch(
            {"logs": store.ping, "other": other.ping}, lambda: _MIDNIGHT + timedelta(seconds=loop.time()), loop.time
        )
        async with stores.watching():
            await asyncio.sleep(2 * WATCH_SECONDS)
            assert (stores.away_seconds("logs"), set(stores.since().values())) == (None, {None})
            store.trouble = trouble
            await asyncio.sleep(60)
            since = store.asked_at[2]
            assert stores.away_seconds("logs") == loop.time() - since
            found_after = (stores.since()["logs"] or _MIDNIGHT) - _MIDNIGHT
            assert since <= found_after.total_seconds() <= since + PROBE_SECONDS + 0.1
            assert stores.since()["other"] is None
            store.trouble = ""
            await asyncio.sleep(AWAY_SECONDS + PROBE_SECONDS + PROBE_SECONDS)
            assert (stores.away_seconds("logs"), set(stores.since().values())) == (None, {None})

    with structlog.testing.capture_logs() as told:
        loop.run(watch())
    assert [(line["event"], line["store"]) for line in told] == [("store_is_away", "logs"), ("store_is_back", "logs")]
    pauses = [after - before for before, after in zip(store.asked_at, store.asked_at[1:], strict=False)]
    assert pauses[:2] == pytest.approx([WATCH_SECONDS + _SLOWEST] * 2)
    while_away = AWAY_SECONDS + (_SLOWEST if trouble == "away" else PROBE_SECONDS)
    assert pauses[2:-1] == pytest.approx([while_away] * len(pauses[2:-1]))


def test_a_mistake_of_ours_ends_no_watch(loop: ShuffledLoop) -> None:
    store = Store(loop)

    async def watch() -> None:
        stores = StoreWatch({"logs": store.ping}, lambda: _MIDNIGHT, loop.time)
        async with stores.watching():
            store.trouble = "broken"
            await asyncio.sleep(WATCH_SECONDS)
            store.trouble = "away"
            await asyncio.sleep(WATCH_SECONDS)
            assert stores.away_seconds("logs") is not None

    with structlog.testing.capture_logs() as told:
        loop.run(watch())
    assert [line["event"] for line in told][-1] == "store_is_away"
    assert "stores_unknown" in [line["event"] for line in told]
