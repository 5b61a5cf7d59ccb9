"""Draws the pictures of the page that stand in `deploy/pictures`: `python -m tests.console.pictures`.

A service of its own, with stores of its own, is shown in Chromium; what is there is written over.
"""

import asyncio
import tempfile
from pathlib import Path
from typing import Final, Literal

from playwright.async_api import Browser, Page, expect

from tests.acceptance.browser import chromium
from tests.conftest import REPOSITORY
from tests.console.conftest import NO_CHROMIUM
from tests.console.views import Sample, make_sample
from tests.console.watching import Watch, watched
from tests.processes import http_to, serve

PICTURES: Final = REPOSITORY / "deploy" / "pictures"
SIZES: Final = {"wide": (1600, 900), "narrow": (360, 740)}
SHOWN: Final = ("chat", "log", "operations")
THEMES: Final[tuple[Literal["light", "dark"], ...]] = ("light", "dark")


async def draw(page: Page, sample: Sample, name: str, file: Path) -> None:
    """One view, as it is when all of it is there."""
    address, text = sample.addresses[name]
    await page.goto(address)
    await expect(page.locator("main").get_by_text(text).locator("visible=true").first).to_be_visible()
    await page.evaluate("() => document.fonts.ready")
    await page.screenshot(path=file, animations="disabled", caret="hide")


async def draw_all(browser: Browser, url: str, sample: Sample) -> None:
    for size, (width, height) in SIZES.items():
        for theme in THEMES:
            view = {"width": width, "height": height}
            async with watched(browser, Watch(url), viewport=view, color_scheme=theme) as page:
                for name in SHOWN:
                    await draw(page, sample, name, PICTURES / f"{name}-{size}-{theme}.png")


async def main() -> None:
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        settings = {"DATA_DIR": f"{folder}/data"}
        async with serve(Path(folder, "log"), settings) as service, chromium() as browser:
            if browser is None:
                raise SystemExit(NO_CHROMIUM)
            async with http_to(service.url, 20) as http:
                sample = await make_sample(http)
            await draw_all(browser, service.url, sample)


if __name__ == "__main__":
    asyncio.run(main())
