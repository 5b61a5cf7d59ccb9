"""A page of the console that somebody watches: what the browser complains of, and what it asks others for."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from playwright.async_api import Browser, ConsoleMessage, Page, Request

COMPLAINTS = frozenset({"error", "warning"})

HIDE = """hidden => {
    Object.defineProperty(document, "hidden", {configurable: true, get: () => hidden});
    document.dispatchEvent(new Event("visibilitychange"));
}"""
"""Whether the page is seen, as when a person goes to another tab and comes back."""


@dataclass  # no slots: playwright leaves a note on who listens
class Watch:
    """What was noticed so far; a broken policy is among the complaints."""

    origin: str
    expected: list[str] = field(default_factory=list)
    """Pieces of what the browser will complain of; each must have come."""
    said: list[str] = field(default_factory=list)

    def attach(self, page: Page) -> None:
        """Look at this page from now on."""
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self.said.append(f"error: {error}"))
        page.on("request", self._asked)

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type in COMPLAINTS:
            self.said.append(f"{message.type}: {message.text} ({message.location.get('url', '')})")

    def _asked(self, request: Request) -> None:
        if not request.url.startswith((f"{self.origin}/", "blob:")):
            self.said.append(f"request: {request.url}")

    def check(self) -> None:
        unexpected = [each for each in self.said if not any(piece in each for piece in self.expected)]
        assert unexpected == []
        assert [piece for piece in self.expected if not any(piece in each for each in self.said)] == []


@asynccontextmanager
async def watched(browser: Browser, watch: Watch, **context: Any) -> AsyncIterator[Page]:
    """A page in a profile of its own; at its end nothing must have been noticed but what is expected."""
    async with await browser.new_context(base_url=watch.origin, reduced_motion="reduce", **context) as profile:
        page = await profile.new_page()
        watch.attach(page)
        page.set_default_timeout(10_000)
        yield page
    watch.check()
