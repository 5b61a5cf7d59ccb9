"""What a person does in a chat of the page, and what stands there."""

import asyncio
import re
from typing import Any

import httpx
from playwright.async_api import Locator, Page, Route, expect

SESSION = re.compile(r"#/chat/([0-9a-f-]{36})$")


class ChatPage:
    """The chat, in one tab."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.field = page.get_by_role("textbox", name="Message", exact=True)
        self.state = page.get_by_role("group", name="Connection").get_by_role("status")
        self.answers = page.get_by_role("article", name="Answer")

    async def open(self, session_id: str | None = None) -> "ChatPage":
        await self.page.goto("/#/chat" if session_id is None else f"/#/chat/{session_id}")
        return self

    async def say(self, *lines: str) -> None:
        """Write it and press Enter; done when it was taken."""
        await self.field.fill("\n".join(lines))
        await self.field.press("Enter")
        await expect(self.field).to_have_value("")

    async def session_id(self) -> str:
        await expect(self.page).to_have_url(SESSION)
        found = SESSION.search(self.page.url)
        assert found is not None
        return found[1]

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name, exact=True)

    async def ended(self, answers: int = 1) -> Locator:
        """The last of so many answers, when it has ended."""
        await expect(self.answers).to_have_count(answers)
        await expect(self.answers.last).to_have_attribute("aria-busy", "false", timeout=20_000)
        return self.answers.last

    async def text(self) -> str:
        """What the last answer says; its blocks, of which a long line is several, with a blank between them."""
        return " ".join(await self.answers.last.locator(".part-text .md-block").all_text_contents())

    async def reconnects(self) -> int:
        facts = await self.page.locator(".reader-facts").text_content()
        found = re.search(r"([0-9]+) reconnect", facts or "")
        return int(found[1]) if found else 0


class Held:
    """Holds the service's first answer back; it is as it was when it was asked for."""

    def __init__(self) -> None:
        self.answered = asyncio.Event()
        self.let_go = asyncio.Event()

    async def __call__(self, route: Route) -> None:
        answer = await route.fetch()
        if not self.answered.is_set():
            self.answered.set()
            await self.let_go.wait()
        await route.fulfill(response=answer)


async def stored(http: httpx.AsyncClient, session_id: str) -> list[dict[str, Any]]:
    """The conversation as the service has it."""
    return (await http.get(f"/sessions/{session_id}")).raise_for_status().json()["messages"]


def said(message: dict[str, Any]) -> str:
    """A message's text."""
    return "".join(part["text"] for part in message["parts"] if part["type"] == "text")


def counted(most: int) -> str:
    """What the demo model says when it counts, as it is shown: a paragraph has no blanks at its end."""
    return " ".join(map(str, range(1, most + 1)))
