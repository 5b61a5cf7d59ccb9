"""What a person does with a log on the page, and what stands there."""

import re
from collections import Counter

from playwright.async_api import Locator, Page, expect


class LogPage:
    """A task's log, in one tab."""

    def __init__(self, page: Page, task_id: str) -> None:
        self.page = page
        self.task_id = task_id
        self.head = page.get_by_role("region", name="Task")
        self.state = page.get_by_role("group", name="Connection").get_by_role("status")
        self.timeline = page.get_by_role("region", name="Timeline")
        self.replay = page.get_by_role("region", name="Replay")
        self.list = page.get_by_role("listbox", name="Events")
        self.chosen = self.list.locator("[aria-selected=true]:visible")
        self.slider = page.get_by_role("slider", name="Events shown")
        self.message = page.get_by_role("region", name="Message as it was then")
        self.detail = page.get_by_role("region", name="Event", exact=True)

    async def open(self, at: str | None = None) -> "LogPage":
        await self.page.goto(f"/#/tasks/{self.task_id}" + ("" if at is None else f"?at={at}"))
        return self

    async def ended(self) -> None:
        await expect(self.state).to_have_text("ended: all of it is here")

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name, exact=True)

    async def at(self, n: int) -> None:
        """The event with this number is the present one."""
        await expect(self.chosen.locator(".event-n")).to_have_text(f"{n:,}")
        await expect(self.slider).to_have_attribute("aria-valuetext", re.compile(f"^event {n:,} of "))

    async def rows(self) -> list[str]:
        """The types of the events that are seen."""
        return await self.list.locator(".event-row:visible .event-type").all_text_contents()

    async def spans(self) -> Counter[str]:
        """How many shapes of each kind the timeline has."""
        shapes = self.timeline.locator(".span")
        return Counter(await shapes.evaluate_all("all => all.map(each => each.dataset.kind)"))

    async def marks(self) -> list[str]:
        """The kinds of the marks, in their order."""
        return await self.timeline.locator(".mark").evaluate_all("all => all.map(each => each.dataset.kind)")

    async def scrub(self, shown: int) -> None:
        """Move the slider there."""
        await self.slider.fill(str(shown))

    async def text(self) -> str:
        """What the message says."""
        return "".join(await self.message.locator(".part-text").all_text_contents()).rstrip()
