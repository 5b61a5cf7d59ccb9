"""Every view of the page: at both widths and in both themes, for who sees little, and for who has no mouse."""

from typing import Literal

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from tests.console.chat import ChatPage, said, stored
from tests.console.conftest import NO_CHROMIUM
from tests.console.keyboard import tab_to
from tests.console.log_page import LogPage
from tests.console.views import HOSTILE, Sample, make_sample
from tests.console.watching import Watch, watched
from tests.node import NO_NODE, PACKAGES, node
from tests.processes import Service, http_to

pytestmark = pytest.mark.asyncio(loop_scope="session")

AXE = PACKAGES / "axe-core" / "axe.min.js"
RUN_AXE = "more => axe.run(document, {resultTypes: ['violations'], ...more}).then(found => found.violations)"
SERIOUS = {"serious", "critical"}
HEIGHTS = {360: 740, 1600: 1000}
Theme = Literal["dark", "light"]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def sample(services: tuple[Service, ...]) -> Sample:
    async with http_to(services[0].url, 20) as http:
        return await make_sample(http)


async def shown(page: Page, address: str, text: str) -> None:
    """Go there; what is asked for has come."""
    await page.goto(address)
    await expect(page.locator("main h1")).to_be_visible()
    await expect(page.locator("main").get_by_text(text).locator("visible=true").first).to_be_visible()


@pytest.mark.parametrize(("width", "theme", "other"), [(360, "dark", "light"), (1600, "light", "dark")])
async def test_no_view_has_a_serious_fault_for_who_sees_little_or_is_wider_than_the_screen(
    browser: Browser | None, service: Service, sample: Sample, width: int, theme: Theme, other: Theme
) -> None:
    if browser is None:
        pytest.skip(NO_CHROMIUM)
    if node() is None:
        pytest.skip(f"{NO_NODE}: no view is looked at with axe")
    faults = []
    size = {"width": width, "height": HEIGHTS[width]}
    async with watched(browser, Watch(service.url, ["404"]), viewport=size, bypass_csp=True) as page:
        await page.goto("/")
        await page.evaluate(AXE.read_text())
        for name, (address, text) in sample.addresses.items():
            await page.emulate_media(color_scheme=theme)
            await shown(page, address, text)
            found = await page.evaluate(RUN_AXE, {})
            await page.emulate_media(color_scheme=other)
            found += await page.evaluate(RUN_AXE, {"runOnly": ["color-contrast"]})
            faults += [
                (name, fault["id"], [each["html"][:120] for each in fault["nodes"][:3]])
                for fault in found
                if fault["impact"] in SERIOUS
            ]
            wider = await page.evaluate("() => document.documentElement.scrollWidth - innerWidth")
            if wider > 0:
                faults.append((name, f"{wider} px wider than the screen", []))
    assert not faults, "\n".join(map(str, faults))


async def test_what_a_model_says_changes_nothing_but_text(watched_page: Page, service: Service) -> None:
    """Under the page's own policy; a script that runs would open a dialog, and a picture ask another host."""
    dialogs: list[str] = []
    watched_page.on("dialog", lambda dialog: dialogs.append(dialog.message))
    chat = await ChatPage(watched_page).open()
    await chat.say("/say Before.")
    await chat.ended()
    before = await watched_page.locator("main *").evaluate_all("all => new Set(all.map(each => each.localName)).size")
    await chat.say(*(f"/say {line}" for line in HOSTILE))
    answer = await chat.ended(2)
    text = (await answer.locator(".part-text").text_content()) or ""
    for piece in (
        "<script>alert(1)</script>",
        "onerror=",
        "<iframe",
        "javascript:alert(4)",
        "\u202ereversed",
        "x" * 999,
    ):
        assert piece in text
    assert dialogs == []
    for name in ("script", "img", "svg", "style", "iframe", "object", "form"):
        assert await answer.locator(f".part-text {name}").count() == 0
    targets = await answer.locator(".part-text a").evaluate_all("all => all.map(each => each.href)")
    assert all(target.startswith("https://example.org/") for target in targets)
    assert before > 5
    async with http_to(service.url, 20) as http:
        (*_, message) = await stored(http, await chat.session_id())
    assert said(message).startswith(HOSTILE[0])
    task = await answer.get_by_role("link", name="Log").get_attribute("href")
    await watched_page.goto(f"/{task}")
    await expect(watched_page.get_by_text("<script>alert(1)</script>").first).to_be_visible()
    assert dialogs == []


async def test_the_keyboard_alone_suffices(watched_page: Page) -> None:
    page = watched_page
    chat = await ChatPage(page).open()
    await expect(chat.field).to_be_focused()
    await page.keyboard.type('/tool ask {"question": "Tea?"}')
    await page.keyboard.press("Enter")
    card = chat.answers.get_by_role("article", name="Operation ask")
    await expect(card).to_contain_text("pending")
    await tab_to(page, "Your answer")
    await page.keyboard.type("Yes.")
    await tab_to(page, "Answer")
    await page.keyboard.press("Enter")
    await chat.ended(2)
    await tab_to(page, "Message")
    await page.keyboard.type("/count 10000 rate=20")
    await page.keyboard.press("Enter")
    await expect(chat.state).to_have_text("live")
    for name, state in {"Cut": "cut", "Resume": "live"}.items():
        await tab_to(page, name)
        await page.keyboard.press("Enter")
        await expect(chat.state).to_have_text(state)
    await tab_to(page, "Stop")
    await page.keyboard.press("Enter")
    await chat.ended(3)
    await chat.answers.last.get_by_role("link", name="Log").focus()  # the first of three
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", name="Timeline")).to_be_visible()
    log = LogPage(page, page.url.rpartition("/")[2])
    await log.ended()
    await tab_to(page, "Events shown")
    end = await log.slider.input_value()
    await page.keyboard.press("Home")
    await expect(log.slider).to_have_value("1")
    assert int(end) > 10
    await tab_to(page, "Verify")
    await page.keyboard.press("Enter")
    await expect(page.get_by_text("proven", exact=False).first).to_be_visible()


async def test_the_views_names_stay_where_they_are(watched_page: Page) -> None:
    await watched_page.goto("/#/chat")
    names = watched_page.get_by_role("navigation", name="Views").get_by_role("link")
    place = "links => links.map(link => link.getBoundingClientRect().x)"
    places = await names.evaluate_all(place)
    for name in ("Tasks", "Operations", "Health"):
        link = names.filter(has_text=name)
        await link.click()
        await expect(link).to_have_attribute("aria-current", "page")
        assert await names.evaluate_all(place) == places


async def test_each_row_of_a_narrow_log_says_something(watched_page: Page, sample: Sample) -> None:
    await watched_page.set_viewport_size({"width": 360, "height": 740})
    await watched_page.goto(f"/#/tasks/{sample.task_id}")
    rows = watched_page.locator(".event-row").locator("visible=true")
    await expect(rows.filter(has_text="start-step").first).to_be_attached()
    said = "rows => rows.map(row => row.innerText.split(/\\s+/).filter(Boolean).length)"
    assert min(await rows.evaluate_all(said)) > 3, "a row has no more than its number and its time"


async def test_an_address_that_names_no_view_is_the_chat(watched_page: Page) -> None:
    for address in ("/#/constructor", "/#/__proto__", "/#/%E0%A4%A", "/#//", "/#/nowhere/at/all?x=%"):
        await watched_page.goto("about:blank")
        await watched_page.goto(address)
        await expect(watched_page.get_by_role("textbox", name="Message", exact=True)).to_be_visible()


async def test_who_has_a_credential_that_is_not_taken_goes_on_without_it_and_leaves_nothing(
    watched_page: Page, watch: Watch
) -> None:
    watch.expected.append("401")
    chat = await ChatPage(watched_page).open()
    await chat.field.fill("Mine.")
    await watched_page.evaluate("() => sessionStorage.setItem('playhead.credential', 'nobody-s')")
    await watched_page.reload()
    await chat.button("Without a credential").click()
    await expect(watched_page.get_by_role("dialog")).to_be_hidden()
    await expect(chat.field).to_have_value("")
    await expect(chat.button("Sign out")).to_be_hidden()
    await chat.say("/say One.")
    await chat.ended()
