"""What is noticed of a page that is watched."""

import pytest
from playwright.async_api import Browser

from tests.acceptance.waiting import until
from tests.console.conftest import NO_CHROMIUM
from tests.console.watching import Watch, watched

pytestmark = pytest.mark.asyncio(loop_scope="session")

COMPLAINTS = {
    "console.error('oh')": "error: oh",
    "console.warn('ah')": "warning: ah",
    "setTimeout(() => { throw new Error('thrown') })": "error: thrown",
    "document.body.setAttribute('onclick', 'x()')": "error: ",
    "fetch('http://127.0.0.2:9/').catch(() => {})": "error: ",
}


@pytest.mark.parametrize("script", COMPLAINTS)
async def test_what_is_the_matter_with_a_page_is_noticed(browser: Browser | None, watch: Watch, script: str) -> None:
    if browser is None:
        pytest.skip(NO_CHROMIUM)

    async def is_noticed() -> bool:
        return any(each.startswith(COMPLAINTS[script]) for each in watch.said)

    async with watched(browser, watch) as page:
        await page.goto("/#/chat")
        watch.check()
        await page.evaluate(f"() => setTimeout(() => {{ {script} }})")
        await until(is_noticed, "a complaint", seconds=5)
        with pytest.raises(AssertionError):
            watch.check()
        watch.expected.append(COMPLAINTS[script])


async def test_what_is_expected_has_to_come(watch: Watch) -> None:
    watch.expected.append("error: oh")
    with pytest.raises(AssertionError):
        watch.check()
