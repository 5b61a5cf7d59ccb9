"""The page, opened in a browser at a whole service, and watched."""

from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page

from tests.console.chat import ChatPage
from tests.console.watching import Watch, watched
from tests.processes import Service, http_to

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


@pytest_asyncio.fixture(loop_scope="session")
async def http(service: Service) -> AsyncIterator[httpx.AsyncClient]:
    """The service, asked as any client does."""
    async with http_to(service.url, 20) as client:
        yield client


@pytest_asyncio.fixture(loop_scope="session")
async def chat(watched_page: Page) -> ChatPage:
    """A new chat on a page that is watched."""
    return await ChatPage(watched_page).open()
