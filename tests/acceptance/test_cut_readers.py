"""Readers whose connections are cut anywhere, again and again, get every event once, in order, to the byte."""

import asyncio
import os
import random
from dataclasses import dataclass, field

import pytest
from playwright.async_api import Browser, Page

from tests.acceptance.browser import NO_CHROMIUM, Seen, follow_in_browser, page_of
from tests.acceptance.client import Client, Stored, assert_whole, frames
from tests.acceptance.proxy import cutting_proxy
from tests.acceptance.readers import RawReader, SseReader
from tests.processes import Service

pytestmark = pytest.mark.asyncio(loop_scope="session")

LEAST_CUTS = 50
MOST_ROUNDS = 6
"""Of new logs, while too few cuts fell in the midst of one: on a slow machine a log may end between two cuts."""

RAW_READERS = 3
RAW_CUTS = 8
SSE_CUTS = 5
BROWSER_CUTS = 8
BROWSER_CUT_BYTES = (2_000, 20_000)

UNICODE = 'line\u2028separator\u2029 "quoted" \\back\\ é 日本語 👩‍🚀🏴‍☠️ \u0007 \ufeff data: id: 7 : hb [DONE]'


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of log, and about how many bytes there are between two cuts of its readers."""

    lines: tuple[str, ...]
    bytes_between_cuts: int


STEADY = Kind((f"/say {UNICODE}", "/count 1000 rate=400", f"/say {UNICODE}"), 10_000)
FAST = Kind(("/count 3000", "/count 20 size=20000", f"/reason {UNICODE}", "/count 3000"), 60_000)
SLOW = Kind((f"/reason {UNICODE}", "/count 8 rate=4", "/wait 0.5", f"/say {UNICODE}"), 400)


@dataclass(slots=True)
class Cuts:
    """When to cut, and how often it was done."""

    rng: random.Random
    while_live: int = 0
    after_the_end: int = 0

    def size(self, kind: Kind) -> int:
        """Bytes until the next cut: often few, sometimes many."""
        return 1 + int(self.rng.expovariate(1 / kind.bytes_between_cuts))

    def sizes(self, kind: Kind, count: int) -> list[int]:
        return [self.size(kind) for _ in range(count)]


@dataclass(slots=True)
class Following:
    """All readers of one log."""

    kind: Kind
    task_id: str
    raw: list[RawReader] = field(default_factory=list)
    sse: list[SseReader] = field(default_factory=list)
    browser: list[Seen] = field(default_factory=list)

    def assert_exact(self, log: list[Stored]) -> None:
        """Each got the log: once, in order, whole."""
        expected, pairs = frames(log), [event.pair for event in log]
        for reader in self.raw:
            assert reader.log == expected
        for sse in self.sse:
            assert sse.pairs == pairs
        for seen in self.browser:
            assert seen.pairs == pairs


@pytest.mark.timeout(180)
async def test_readers_that_are_cut_again_and_again_get_exactly_the_log(
    service: Service, client: Client, browser: Browser | None
) -> None:
    seed = int(os.environ.get("TEST_PLAYHEAD_SEED", random.randrange(2**32)))
    print(f"TEST_PLAYHEAD_SEED={seed}")  # shown when the test fails
    cuts = Cuts(random.Random(seed))
    browser_budgets = [cuts.rng.randint(*BROWSER_CUT_BYTES) for _ in range(BROWSER_CUTS)]
    live: list[Following] = []
    async with cutting_proxy(service.url, browser_budgets) as proxy, page_of(browser, proxy.url) as page:
        for number in range(MOST_ROUNDS):
            begun = [Following(kind, await client.post(*kind.lines)) for kind in (STEADY, FAST, SLOW)]
            async with asyncio.TaskGroup() as readers:
                for following in begun:
                    if page is not None and number == 0:
                        readers.create_task(_follow_in_browser(page, following))
                    _start(readers, service, client, following, cuts)
            live += begun
            if cuts.while_live >= LEAST_CUTS / 2:
                break
    assert cuts.while_live >= LEAST_CUTS / 2
    assert page is None or proxy.cuts >= BROWSER_CUTS / 2

    ended = [Following(following.kind, following.task_id) for following in begun]
    async with asyncio.TaskGroup() as readers:
        for following in ended:
            _start(readers, service, client, following, cuts)
    assert cuts.after_the_end >= LEAST_CUTS / 2
    assert cuts.while_live + cuts.after_the_end + proxy.cuts >= LEAST_CUTS

    for following in live + ended:
        log = await client.stored(following.task_id)
        assert_whole(log)
        following.assert_exact(log)
    if browser is None:
        pytest.skip(NO_CHROMIUM)


async def _follow_in_browser(page: Page, following: Following) -> None:
    following.browser.append(await follow_in_browser(page, following.task_id))


def _start(readers: asyncio.TaskGroup, service: Service, client: Client, following: Following, cuts: Cuts) -> None:
    for _ in range(RAW_READERS):
        raw = RawReader(following.task_id)
        following.raw.append(raw)
        readers.create_task(_read_cut(service, client, raw, following.kind, cuts))
    sse = SseReader(following.task_id)
    following.sse.append(sse)
    readers.create_task(_read_through_proxy(service, client, sse, following.kind, cuts))


async def _read_cut(service: Service, client: Client, reader: RawReader, kind: Kind, cuts: Cuts) -> None:
    for size in cuts.sizes(kind, RAW_CUTS):
        before = reader.cuts
        if not reader.finished:
            await reader.read(service.url, size)
        await _note(client, reader.task_id, reader.cuts - before, cuts)
    await reader.read_to_the_end(service.url)


async def _read_through_proxy(service: Service, client: Client, reader: SseReader, kind: Kind, cuts: Cuts) -> None:
    budgets = [1_000 + size for size in cuts.sizes(kind, SSE_CUTS)]
    async with cutting_proxy(service.url, budgets) as proxy:
        await reader.read_to_the_end(proxy.url)
    cuts.after_the_end += proxy.cuts


async def _note(client: Client, task_id: str, count: int, cuts: Cuts) -> None:
    if await client.is_closed(task_id):
        cuts.after_the_end += count
    else:
        cuts.while_live += count
