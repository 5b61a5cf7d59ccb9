"""`EventSource` in a real browser, on a page of the service's own origin."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from playwright.async_api import Browser, Page, async_playwright

from tests.acceptance.readers import DEADLINE_SECONDS

NO_CHROMIUM = "no chromium on the PATH (`make browser` installs it): not shown with EventSource"

_BINARIES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
"""Of Chromium without windows there is less: the first one takes a fifth less of the machine than the second."""

_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
_FOLLOW = """path => new Promise(done => {
    const source = new EventSource(path), events = [];
    let opened = 0;
    source.onopen = () => opened++;
    source.onmessage = event => events.push([event.lastEventId, event.data]);
    source.onerror = () => source.readyState === EventSource.CLOSED && done({events, opened});
})"""
"""Answers when the browser has given up by itself: nothing here closes the source."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a page saw until its EventSource was closed."""

    pairs: list[tuple[str, str]]
    ends: int
    """How many end marks were among it; they are not among the pairs."""
    opened: int
    """How many connections brought a stream."""


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser | None]:
    """A headless Chromium, Debian's or another; None where there is none."""
    binary = next(filter(None, map(shutil.which, _BINARIES)), None)
    if binary is None:
        yield None
        return
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=binary, headless=True, args=list(_FLAGS))
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def page_of(browser: Browser | None, url: str) -> AsyncIterator[Page | None]:
    """A page that comes from this service: others may not ask it for streams. None without a browser."""
    if browser is None:
        yield None
        return
    page = await browser.new_page()
    try:
        answer = await page.goto(f"{url}/healthz")
        assert answer is not None
        assert answer.ok
        yield page
    finally:
        await page.close()


async def follow_in_browser(page: Page, task_id: str) -> Seen:
    """Let an EventSource follow the task until it has closed itself for good."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        seen = await page.evaluate(_FOLLOW, f"/tasks/{task_id}/stream")
    events = [(position, data) for position, data in seen["events"]]
    pairs = [event for event in events if event[1] != "[DONE]"]
    return Seen(pairs, len(events) - len(pairs), seen["opened"])
