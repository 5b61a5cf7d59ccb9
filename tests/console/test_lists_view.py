"""Tasks, operations, dead letters and health, as an operator sees them: a browser at a whole service."""

import re
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import httpx
import pytest
import pytest_asyncio
from playwright.async_api import Page, expect

from service.wiring import StoreUrls
from tests.acceptance.waiting import until
from tests.adapters.remote_service import wiping
from tests.console.watching import Watch
from tests.processes import Service, http_to, serve
from tests.sessions.databases import begin_operations

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def service(stores: StoreUrls, dsn: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Service]:
    """One that has a tool which needs an approval; nobody in it minds deadlines."""
    folder = tmp_path_factory.mktemp("lists")
    async with wiping(folder) as (_, tools):
        settings = {"REDIS_URL": stores.redis, "POSTGRES_URL": dsn, "TOOLS_FILE": str(tools)}
        parts = ("--only", "http", "--only", "tasks")
        async with serve(folder / "log", settings, *parts) as started:
            yield started


@pytest_asyncio.fixture(loop_scope="session")
async def http(service: Service) -> AsyncIterator[httpx.AsyncClient]:
    async with http_to(service.url, 10) as made:
        yield made


@pytest.fixture
def page(watched_page: Page) -> Page:
    return watched_page


async def say(http: httpx.AsyncClient, *lines: str) -> tuple[str, str]:
    """In a session of its own, which is answered with the task."""
    session = (await http.post("/sessions", json={})).json()["id"]
    posted = await http.post(f"/sessions/{session}/messages", json={"text": "\n".join(lines)})
    return session, posted.json()["task_id"]


async def begun(http: httpx.AsyncClient, session: str) -> str:
    """The id of a session's operation, as soon as there is one and its turn has ended."""

    async def look() -> Any:
        listed = (await http.get("/operations", params={"session": session})).json()["operations"]
        idle = (await http.get(f"/sessions/{session}")).json()["status"] == "idle"
        return listed[0]["id"] if listed and idle else None

    return str(await until(look, "an operation"))


async def pending(dsn: str) -> str:
    """An operation that an external service has taken."""
    connection = await asyncpg.connect(dsn)
    try:
        return str((await begin_operations(connection, 1))[-1])
    finally:
        await connection.close()


async def life(http: httpx.AsyncClient, operation: str) -> dict[str, Any]:
    return dict((await http.get(f"/operations/{operation}")).json())


async def look_again(page: Page) -> None:
    """As a page does that is seen again; else it would be waited for."""
    await page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")


# --- an operation ---


async def test_a_question_is_answered_and_what_is_half_written_stays(page: Page, http: httpx.AsyncClient) -> None:
    session, _ = await say(http, '/tool ask {"question": "Tea or coffee?"}')
    operation = await begun(http, session)
    await page.goto(f"/#/operations/{operation}")
    card = page.get_by_role("article")
    await expect(card).to_contain_text("Tea or coffee?")
    answer = card.get_by_label("Your answer")
    await answer.press_sequentially("Te")
    async with page.expect_response(re.compile("/operations/")):
        await look_again(page)
    await answer.press_sequentially("a.")
    await card.get_by_role("button", name="Answer").click()
    await expect(card.locator(".badge")).to_have_text("succeeded")
    await expect(answer).to_be_hidden()
    await expect(card.get_by_label("Result")).to_have_text('"Tea."')
    assert (await life(http, operation))["outcome"] == {"result": "Tea."}
    await expect(page.get_by_role("table", name="Messages about its end")).to_contain_text("accepted")
    await expect(page.get_by_role("table", name="Follow-ups")).to_contain_text("succeeded")


async def test_what_is_agreed_to_is_what_is_there(page: Page, http: httpx.AsyncClient) -> None:
    session, _ = await say(http, r'/tool wipe {"then": "a\u202eb"}')
    operation = await begun(http, session)
    await page.goto(f"/#/operations/{operation}")
    card = page.get_by_role("article")
    await expect(card.get_by_label("Arguments")).to_have_text('{\n  "then": "a\\u202eb"\n}')
    await card.get_by_role("button", name="Approve").click()
    await expect(card.locator(".badge")).to_have_text("succeeded")
    assert (await life(http, operation))["status"] == "succeeded"


async def test_a_no_has_its_reason(page: Page, http: httpx.AsyncClient) -> None:
    session, _ = await say(http, "/tool wipe {}")
    operation = await begun(http, session)
    await page.goto(f"/#/operations/{operation}")
    card = page.get_by_role("article")
    await card.get_by_label("Reason for a no").fill("Not today.")
    await card.get_by_role("button", name="Deny").press("Enter")
    await expect(card).to_contain_text("Reason: Not today.")
    await expect(card).to_be_focused()
    assert (await life(http, operation))["outcome"] == {"reason": "Not today."}


async def test_an_operation_is_completed_by_hand(page: Page, http: httpx.AsyncClient, dsn: str) -> None:
    operation = await pending(dsn)
    await http.post(f"/operations/{operation}/complete", json={"progress": 0.5})
    await page.goto(f"/#/operations/{operation}")
    await expect(page.get_by_role("progressbar", name="Progress")).to_have_attribute("value", "0.5")
    await expect(page.get_by_role("article")).to_contain_text("due in")
    await page.get_by_text("Complete by hand").click()
    await page.get_by_label("Result (JSON)").fill("{frames: 3}")
    await page.get_by_role("button", name="Complete").click()
    await expect(page.get_by_role("alert").filter(has_text="This is no JSON")).to_be_visible()
    assert (await life(http, operation))["status"] == "pending"
    await page.get_by_label("Result (JSON)").fill('{"frames": 3}')
    await page.get_by_role("button", name="Complete").click()
    await expect(page.get_by_role("article").locator(".badge")).to_have_text("succeeded")
    await expect(page.get_by_text("Complete by hand")).to_be_hidden()
    assert (await life(http, operation))["outcome"] == {"result": {"frames": 3}}


async def test_a_failure_is_said_by_hand_and_a_wrong_type_is_refused(
    page: Page, watch: Watch, http: httpx.AsyncClient, dsn: str
) -> None:
    operation = await pending(dsn)
    watch.expected.append("422")
    await page.goto(f"/#/operations/{operation}")
    await page.get_by_text("Complete by hand").click()
    await page.get_by_label("Failed", exact=True).check()
    await page.get_by_label("Error type").fill("Printer!")
    await page.get_by_label("Message for people").fill("The printer is gone.")
    await page.get_by_role("button", name="Complete").click()
    await expect(page.get_by_role("alert").filter(has_text="error_type")).to_be_visible()
    await page.get_by_label("Error type").fill("printer")
    await page.get_by_role("button", name="Complete").click()
    await expect(page.get_by_role("article")).to_contain_text("printer The printer is gone.")
    assert (await life(http, operation))["outcome"] == {"error_type": "printer", "message": "The printer is gone."}


async def test_an_operation_is_cancelled_at_the_second_press(page: Page, http: httpx.AsyncClient, dsn: str) -> None:
    operation = await pending(dsn)
    await page.goto(f"/#/operations/{operation}")
    await page.get_by_role("button", name="Cancel").press("Enter")
    await page.get_by_role("button", name="Cancel it?").press("Escape")
    await page.get_by_role("button", name="Cancel", exact=True).press("Enter")
    assert (await life(http, operation))["status"] == "pending"
    await page.get_by_role("button", name="Cancel it?").press("Enter")
    await expect(page.get_by_role("article").locator(".badge")).to_have_text("cancelled")
    assert (await life(http, operation))["status"] == "cancelled"


async def test_a_follow_up_that_fails_is_redriven(page: Page, http: httpx.AsyncClient, dsn: str) -> None:
    operation = await failing(http, dsn)
    await page.goto(f"/#/operations/{operation}")
    await expect(page.get_by_role("article")).to_contain_text("validation_error, tried once")
    await page.get_by_role("button", name="Redrive").click()
    await expect(page.get_by_role("table", name="Messages about its end")).to_contain_text("redriven")
    assert [each["disposition"] for each in (await life(http, operation))["deliveries"]] == ["accepted", "redriven"]


async def failing(http: httpx.AsyncClient, dsn: str) -> str:
    """An operation whose follow-up has failed once, and rests."""
    operation = await pending(dsn)
    done = {"success": True, "result": "/fail validation_error"}
    (await http.post(f"/operations/{operation}/complete", json=done)).raise_for_status()

    async def rests() -> bool:
        return any(each["failed_tries"] for each in (await life(http, operation))["follow_ups"])

    await until(rests, "a try that fails")
    return operation


async def test_what_is_not_there_or_nobody_can_be_told_of_is_no_such_operation(page: Page, watch: Watch) -> None:
    watch.expected.append("404")
    await page.goto("/#/operations/01890000-0000-7000-8000-000000000000")
    await expect(page.get_by_role("alert").first).to_contain_text("There is no such operation")
    await expect(page.get_by_role("article")).to_be_hidden()
