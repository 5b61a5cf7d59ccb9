"""The page, opened in a browser at a whole service, and watched."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page

from tests.console.watching import Watch, watched
from tests.processes import Service

NO_CHROMIUM = "no chromium on the PATH (`make browser` installs it): the page is not shown"


@pytest.fixture
def watch(service: Service) -> Watch:
    """What is noticed of `watched_page`, and what a test expects that the browser complains of."""
    return Watch(service.url)


@pytest_asyncio.fixture(loop_scope="session")
async def watched_page(browser: Browser | None, watch: Watch) -> AsyncIterator[Page]:
    """A page; the test fails where the browser complains of anything, or asks another host for anything."""
    if browser is None:
        pytest.skip(NO_CHROMIUM)
    async with watched(browser, watch) as page:
        yield page
