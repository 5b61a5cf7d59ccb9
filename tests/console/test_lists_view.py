"""Tasks, operations, dead letters and health, as an operator sees them: a browser at a whole service."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import asyncpg
import httpx
import pytest
import pytest_asyncio
from playwright.async_api import APIResponse, Browser, Locator, Page, Route, expect

from service.adapters.memory_keys import MemoryKeys
from service.settings import Settings
from service.wiring import StoreUrls, open_app
from tests.acceptance.waiting import until
from tests.adapters.rabbits import Rabbit, rabbit_at
from tests.adapters.remote_service import wiping
from tests.adapters.test_rabbit import bury
from tests.console.conftest import NO_CHROMIUM
from tests.console.keyboard import tab_to
from tests.console.watching import Watch, watched
from tests.faults.link import Link, link_to
from tests.faults.wire import Refuse
from tests.http.conftest import served
from tests.http.memory import Doors, opened
from tests.node import NO_NODE, PACKAGES
from tests.processes import Service, http_to, serve
from tests.sessions.databases import begin_operations

pytestmark = pytest.mark.asyncio(loop_scope="session")

BROKEN_RULES = """async rules => (await axe.run(document, {runOnly: rules})).violations.map(
    each => [each.id, ...each.nodes.map(node => node.target.join(" "))])"""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def to_redis(stores: StoreUrls) -> AsyncIterator[Link]:
    """The way of `service` to its Redis."""
    async with link_to(Path(urlsplit(stores.redis).path)) as link:
        yield link


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def service(to_redis: Link, dsn: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Service]:
    """One that has a tool which needs an approval; nobody in it minds deadlines."""
    folder = tmp_path_factory.mktemp("lists")
    async with wiping(folder) as (_, tools):
        stores = {"REDIS_URL": f"redis://127.0.0.1:{to_redis.port}/0", "POSTGRES_URL": dsn}
        parts = ("--only", "http", "--only", "tasks")
        async with serve(folder / "log", stores | {"TOOLS_FILE": str(tools)}, *parts) as started:
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


@asynccontextmanager
async def database(dsn: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(dsn)
    try:
        yield connection
    finally:
        await connection.close()


async def pending(dsn: str) -> str:
    """An operation that an external service has taken."""
    async with database(dsn) as connection:
        return str((await begin_operations(connection, 1))[-1])


async def overdue(dsn: str) -> str:
    """One that it has forgotten."""
    operation = await pending(dsn)
    async with database(dsn) as connection:
        late = (
            "UPDATE operations SET created_at = now() - interval '2 h', deadline = now() - interval '1 h' WHERE id = $1"
        )
        await connection.execute(late, operation)
    return operation


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
    await expect(page.get_by_role("table", name="Follow-ups").get_by_role("row")).to_have_count(2)


async def test_a_question_is_answered_as_a_message_is_sent(page: Page, http: httpx.AsyncClient) -> None:
    session, _ = await say(http, '/tool ask {"question": "Tea or coffee?"}')
    operation = await begun(http, session)
    await page.goto(f"/#/operations/{operation}")
    answer = page.get_by_role("article").get_by_label("Your answer")
    await answer.press_sequentially("Tea,")
    await answer.press("Shift+Enter")
    await answer.press_sequentially("please.")
    await answer.press("Enter")
    await expect(page.get_by_role("article").locator(".badge")).to_have_text("succeeded")
    assert (await life(http, operation))["outcome"] == {"result": "Tea,\nplease."}


async def test_what_is_agreed_to_is_what_is_there(page: Page, http: httpx.AsyncClient) -> None:
    session, _ = await say(http, r'/tool wipe {"then": "a\u202eb"}')
    operation = await begun(http, session)
    await page.goto(f"/#/operations/{operation}")
    card = page.get_by_role("article")
    await expect(card.get_by_label("Arguments")).to_be_visible()
    await expect(card.get_by_label("Arguments")).to_have_text('{\n  "then": "a\\u202eb"\n}')
    await card.get_by_role("button", name="Approve").click()
    await expect(card.locator(".badge")).to_have_text("succeeded")
    assert (await life(http, operation))["status"] == "succeeded"


async def test_a_list_is_narrowed_down_and_agreed_to_by_keys_alone(page: Page, http: httpx.AsyncClient) -> None:
    session, _ = await say(http, "/tool wipe {}")
    operation = await begun(http, session)
    await page.goto(f"/#/operations?session={session}")
    link = page.get_by_role("table", name="All").get_by_title(operation)
    name = await link.inner_text()
    await tab_to(page, "Executor")
    await page.keyboard.press("p")  # erson
    await expect(page).to_have_url(re.compile("executor=person"))
    await tab_to(page, name)
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("article")).to_be_visible()
    await tab_to(page, "Approve")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("article").locator(".badge")).to_have_text("succeeded")


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


async def test_a_follow_up_that_failed_for_good_is_redriven(page: Page, http: httpx.AsyncClient, dsn: str) -> None:
    operation = await failing(http, dsn)
    async with database(dsn) as connection:
        last = "UPDATE tasks SET due_at = now(), failed_tries = 4 WHERE operation_id = $1 AND status = 'queued'"
        assert await connection.execute(last, operation) == "UPDATE 1"
    await page.goto(f"/#/operations/{operation}")
    card, follow_ups = page.get_by_role("article"), page.get_by_role("table", name="Follow-ups")
    await expect(card).to_contain_text("The agent could not go on with this (validation_error")
    await expect(follow_ups.get_by_role("row")).to_have_count(2)
    await card.get_by_role("button", name="Redrive").click()
    await expect(follow_ups.get_by_role("row")).to_have_count(3)


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


async def test_a_yes_that_comes_too_late_is_told_so(page: Page, watch: Watch, http: httpx.AsyncClient) -> None:
    session, _ = await say(http, "/tool wipe {}")
    operation = await begun(http, session)
    await page.clock.install()
    await page.goto(f"/#/operations/{operation}")
    await expect(page.get_by_role("button", name="Approve")).to_be_visible()
    watch.expected.append("409")
    await page.clock.pause_at(datetime.now(UTC) + timedelta(seconds=1))  # from now on it does not look by itself
    await http.post(f"/operations/{operation}/cancel", json={})
    await page.get_by_role("button", name="Approve").click()
    await expect(page.get_by_role("article").get_by_role("alert")).to_contain_text("How it ended stays.")
    await expect(page.get_by_role("article").locator(".badge")).to_have_text("cancelled")


async def test_what_was_read_before_it_had_ended_does_not_bring_it_back(page: Page, http: httpx.AsyncClient) -> None:
    session, _ = await say(http, '/tool ask {"question": "Tea?"}')
    operation = await begun(http, session)
    asked: asyncio.Queue[tuple[Route, APIResponse]] = asyncio.Queue()

    async def hold(route: Route) -> None:
        asked.put_nowait((route, await route.fetch()))

    await page.goto(f"/#/operations/{operation}")
    card = page.get_by_role("article")
    await card.get_by_label("Your answer").fill("No.")
    await page.route(f"**/operations/{operation}", hold)
    await look_again(page)
    late, pending = await asked.get()
    await look_again(page)  # once more, as soon as that one has come
    await card.get_by_role("button", name="Answer").click()
    route, ended = await asked.get()
    await route.fulfill(response=ended)
    await expect(card.locator(".badge")).to_have_text("succeeded")
    await late.fulfill(response=pending)
    await asked.get()
    assert await card.locator(".badge").inner_text() == "succeeded"
    assert await card.get_by_label("Your answer").is_hidden()


# --- operations ---


async def test_what_is_stuck_is_on_top_and_says_why(page: Page, http: httpx.AsyncClient, dsn: str) -> None:
    late, failed, young = await overdue(dsn), await failing(http, dsn), await pending(dsn)
    await page.goto("/#/operations")
    stuck, listed = page.get_by_role("table", name="Stuck"), page.get_by_role("table", name="All")
    await expect(row_of(stuck, late)).to_contain_text("overdue by 1 h")
    await expect(row_of(stuck, late).locator(".badge")).to_have_text("overdue")
    await expect(row_of(stuck, failed)).to_contain_text("its follow-up rests: validation_error, again in")
    await expect(row_of(listed, young)).to_be_visible()
    await expect(row_of(stuck, young)).to_be_hidden()
    await row_of(stuck, failed).get_by_role("button", name="Redrive").click()

    async def is_redriven() -> bool:
        return "redriven" in [each["disposition"] for each in (await life(http, failed))["deliveries"]]

    await until(is_redriven, "the redrive")
    await page.get_by_label("Older than").select_option("1 h")
    await expect(row_of(stuck, late)).to_be_visible()
    await expect(row_of(listed, young)).to_be_hidden()
    assert page.url.endswith("#/operations?age=3600")


async def test_one_that_has_gone_through_meanwhile_keeps_no_other_from_being_redriven(
    page: Page, watch: Watch, http: httpx.AsyncClient, dsn: str
) -> None:
    watch.expected.append("409")
    await failing(http, dsn)
    await failing(http, dsn)
    asked: list[str] = []

    async def redrive(route: Route) -> None:
        asked.append(route.request.url)
        refused = {"error_type": "nothing_failed", "detail": "Nothing failed."}
        await route.fulfill(status=409 if len(asked) == 1 else 202, json=refused if len(asked) == 1 else {})

    await page.route("**/operations/*/redrive", redrive)
    await page.goto("/#/operations?stuck=1")
    await page.get_by_role("button", name="Redrive all").click()
    await page.get_by_role("button", name="Redrive all?").click()
    done = page.get_by_role("status").get_by_text("redriven")
    await expect(done).to_be_visible()
    assert len(set(asked)) > 1
    await expect(done).to_contain_text(f"{len(asked) - 1} of {len(asked)} follow-ups redriven.")


async def test_operations_are_narrowed_down_by_the_address(page: Page, http: httpx.AsyncClient, dsn: str) -> None:
    session, _ = await say(http, '/tool ask {"question": "Why?"}')
    question, render = await begun(http, session), await pending(dsn)
    listed = page.get_by_role("table", name="All")
    await page.goto("/#/operations?executor=person&status=pending")
    await expect(page.get_by_label("Executor")).to_have_value("person")
    await expect(row_of(listed, question)).to_be_visible()
    await expect(row_of(listed, render)).to_be_hidden()
    await page.goto("/#/operations?tool=render")
    await expect(row_of(listed, render)).to_be_visible()
    await expect(row_of(listed, question)).to_be_hidden()
    await page.get_by_label("Show").select_option("stuck only")
    await expect(listed).to_be_hidden()
    await page.go_back()
    await expect(page.get_by_label("Executor")).to_have_value("person")
    await expect(row_of(listed, question)).to_be_visible()
    await page.get_by_label("Operation", exact=True).fill(f" {question} ")
    await page.get_by_label("Operation", exact=True).press("Enter")
    await expect(page.get_by_role("article")).to_contain_text("Why?")


def row_of(table: Locator, whole_id: str) -> Locator:
    return table.get_by_role("row").filter(has=table.page.get_by_title(whole_id))


# --- tasks ---


async def test_what_is_old_is_judged_by_the_clock_of_the_service(page: Page, http: httpx.AsyncClient, dsn: str) -> None:
    session, task = await say(http, "/wait 60")
    operation = await pending(dsn)
    async with database(dsn) as connection:
        soon = "UPDATE operations SET deadline = now() + interval '10 min' WHERE id = $1"
        await connection.execute(soon, operation)
    await page.clock.install(time=datetime.now(UTC) + timedelta(minutes=15))
    await page.goto(f"/#/tasks?session={session}")
    row = row_of(page.get_by_role("table", name="Not ended"), task)
    await expect(row).to_contain_text("running")
    await expect(row).not_to_contain_text("15 min")
    await expect(row).not_to_contain_text("runs for long")
    await page.get_by_label("Older than").select_option("5 min")
    await expect(row).to_have_count(0)
    await page.goto("/#/operations?status=pending")
    await expect(row_of(page.get_by_role("table", name="All"), operation).locator(".badge")).to_have_text("pending")
    await page.goto(f"/#/operations/{operation}")
    await expect(page.get_by_role("article")).to_contain_text("due in 9 min")
    await http.post(f"/tasks/{task}/cancel", json={})


async def test_tasks_are_narrowed_down_and_rows_stay_while_they_are_told_anew(
    page: Page, http: httpx.AsyncClient
) -> None:
    session, task = await say(http, "/wait 60")
    _, other = await say(http, "/say Hi")
    await page.goto("/#/tasks")
    table, ended = page.get_by_role("table", name="Not ended"), page.get_by_role("table", name="Ended", exact=True)
    await expect(row_of(table, task)).to_contain_text("running")
    await expect(row_of(ended, other)).to_contain_text("succeeded")
    link = row_of(table, task).get_by_title(task)
    await link.focus()
    _, later = await say(http, "/wait 60")
    await look_again(page)
    await expect(row_of(table, later)).to_be_visible()
    await expect(link).to_be_focused()
    await page.get_by_label("Session").fill(session)
    await page.get_by_label("Session").press("Tab")
    await expect(row_of(table, later)).to_be_hidden()
    await expect(row_of(table, task)).to_be_visible()
    await page.get_by_label("Status").select_option("succeeded")
    await expect(table).to_be_hidden()
    await page.reload()
    await expect(page.get_by_label("Session")).to_have_value(session)
    await expect(page.get_by_label("Status")).to_have_value("succeeded")
    await page.goto(f"/#/tasks?session={session}")
    await row_of(table, task).get_by_role("button", name="Cancel").click()
    await row_of(table, task).get_by_role("button", name="Cancel it?").click()
    await look_again(page)
    await expect(row_of(ended, task)).to_contain_text("cancelled")
    await http.post(f"/tasks/{later}/cancel", json={})


async def test_an_operation_that_is_cancelled_among_the_tasks_is_told_to_its_agent(
    page: Page, http: httpx.AsyncClient
) -> None:
    session, _ = await say(http, '/tool ask {"question": "Tea?"}')

    async def asked() -> Any:
        return (await http.get("/operations", params={"session": session})).json()["operations"]

    (operation,) = await until(asked, "the question")
    await page.goto(f"/#/tasks?session={session}")
    row = row_of(page.get_by_role("table", name="Not ended"), operation["task_id"])
    await row.get_by_role("button", name="Cancel").click()
    await row.get_by_role("button", name="Cancel it?").click()
    await expect(row).to_have_count(0)
    ended = (await http.get(f"/operations/{operation['id']}")).json()
    assert (ended["status"], ended["has_follow_up"]) == ("cancelled", True)


async def test_a_task_that_somebody_should_look_at_is_on_top(page: Page, http: httpx.AsyncClient, dsn: str) -> None:
    _, task = await say(http, "/wait 60")
    _, other = await say(http, "/wait 60")
    async with database(dsn) as connection:
        older = "UPDATE tasks SET created_at = now() - interval '1 day' WHERE id = $1"
        await connection.execute(older, other)
        slow = "UPDATE tasks SET started_at = now() - interval '11 min' WHERE id = $1"
        await connection.execute(slow, task)
    await page.goto("/#/tasks?status=running")
    rows = page.get_by_role("table", name="Not ended").get_by_role("row")
    await expect(rows.nth(1)).to_contain_text("runs for long")
    await expect(rows.nth(1).get_by_title(task)).to_be_visible()
    await expect(rows.nth(2).get_by_title(other)).to_be_visible()
    for each in (task, other):
        await http.post(f"/tasks/{each}/cancel", json={})


async def test_open_tasks_are_all_there_and_earlier_ones_behind_the_newest(page: Page, dsn: str) -> None:
    async with database(dsn) as connection:
        await begin_operations(connection, 120)
    await page.goto("/#/tasks?status=waiting")
    waiting = page.get_by_role("table", name="Not ended").get_by_role("row")
    await expect(waiting.nth(120)).to_be_visible()
    await page.goto("/#/tasks?kind=turn&status=succeeded")
    rows = page.get_by_role("table", name="Ended", exact=True).get_by_role("row")
    await expect(rows).to_have_count(101)
    await page.get_by_role("button", name="Earlier").click()
    await expect(rows.nth(120)).to_be_visible()


async def test_what_was_asked_for_before_a_filter_changed_is_not_shown_behind_it(
    page: Page, http: httpx.AsyncClient, dsn: str
) -> None:
    async with database(dsn) as connection:
        await begin_operations(connection, 120)
    session, task = await say(http, "/say Hi")
    held: asyncio.Future[Route] = asyncio.Future()

    async def hold(route: Route) -> None:
        held.set_result(route)

    await page.route("**/tasks?*before=*", hold)
    await page.goto("/#/tasks?kind=turn&status=succeeded")
    ended = page.get_by_role("table", name="Ended", exact=True)
    await expect(row_of(ended, task)).to_be_visible()
    await page.get_by_role("button", name="Earlier").click()
    earlier = await held
    await page.get_by_label("Session").fill(session)
    await page.get_by_label("Session").press("Tab")
    await expect(ended.get_by_role("row")).to_have_count(2)
    await earlier.continue_()
    await expect(page.get_by_text("Earlier", exact=True)).to_be_enabled()
    assert await ended.get_by_role("row").count() == 2


async def test_a_list_of_sessions_has_each_that_is_there_and_none_that_is_deleted(
    page: Page, watch: Watch, http: httpx.AsyncClient
) -> None:
    watch.expected.append("404")
    ids = [str(UUID(int=number)) for number in range(60)]
    open_one, _ = await say(http, "/say Hi")

    async def listed(route: Route) -> None:
        before = re.search("before=([0-9]+)", route.request.url)
        end = int(before[1]) if before else len(ids)
        sessions = [
            {"id": ids[number], "title": None, "status": "idle", "created_at": f"2026-01-01T00:{number:02}:00Z"}
            for number in range(end - 30, end)
        ]
        earlier = f"/sessions?limit=30&before={end - 30}" if end > 30 else None
        await route.fulfill(json={"sessions": sessions[::-1], "earlier": earlier})

    await page.route("**/sessions?*", listed)
    await page.goto(f"/#/chat/{open_one}")
    sessions = page.get_by_role("navigation", name="Sessions")
    rows = sessions.get_by_role("listitem")
    await expect(rows).to_have_count(30)
    await sessions.get_by_role("button", name="Earlier").click()
    await expect(rows).to_have_count(60)
    ids.extend(str(UUID(int=number)) for number in range(60, 63))
    await look_again(page)
    await expect(sessions.locator(f"[href$='{ids[-1]}']")).to_be_visible()
    await expect(rows).to_have_count(63)
    await sessions.locator(f"[href$='{ids[5]}']").click()
    await expect(page.get_by_text("There is no such session.")).to_be_visible()
    await expect(rows).to_have_count(62)


# --- dead letters ---


@asynccontextmanager
async def over_rabbit(rabbit: Rabbit, **settings: Any) -> AsyncIterator[Doors]:
    """Doors whose dead letters are those of this broker."""
    doors, chosen = Doors(MemoryKeys()), Settings(_env_file=None, **settings)
    house = replace(doors.house, letters=rabbit.letters)
    async with open_app(house, chosen) as app, served(app, chosen) as url:
        doors.url = url
        yield doors


async def test_dead_letters_are_listed_and_redriven(browser: Browser | None, amqp_url: str) -> None:
    if browser is None:
        pytest.skip(NO_CHROMIUM)
    async with rabbit_at(amqp_url) as rabbit, over_rabbit(rabbit) as doors:
        await bury(
            rabbit, (b"{", "unreadable"), (b'{"a": "\xe2\x80\xae"}', "failed"), (b"[]", "failed"), (b"[", "unreadable")
        )
        async with watched(browser, Watch(doors.url)) as page:
            await page.goto("/#/dead-letters")
            rows = page.get_by_role("table", name="Dead letters").get_by_role("row")
            await expect(rows).to_have_count(5)
            await rows.nth(2).locator("summary").click()
            await expect(rows.nth(2).get_by_label("Body")).to_have_text('{"a": "\\u202e"}')
            await rows.nth(1).get_by_role("button", name="Redrive").click()
            await expect(page.get_by_role("status").first).to_contain_text("1 dead letter sent again.")
            await expect(rows).to_have_count(4)
            await rabbit.has(ready=1, parked=0, dead=3)
            await page.get_by_role("button", name="Redrive failed").click()
            await page.get_by_role("button", name="Redrive all that are failed?").click()
            await expect(rows).to_have_count(2)
            await rabbit.has(ready=3, parked=0, dead=1)
            await expect(page.get_by_role("button", name="Redrive failed")).to_be_hidden()
            await page.get_by_role("button", name="Redrive all", exact=True).click()
            await page.get_by_role("button", name="Redrive all dead letters?").click()
            await expect(page.get_by_text("There are no dead letters.")).to_be_visible()
            await rabbit.has(ready=4, parked=0, dead=0)


async def test_without_a_broker_there_are_no_dead_letters(page: Page, watch: Watch) -> None:
    watch.expected.append("404")
    await page.goto("/#/dead-letters")
    await expect(page.get_by_role("alert")).to_contain_text("No RabbitMQ is configured")


async def test_who_may_not_look_is_told_who_may(browser: Browser | None) -> None:
    if browser is None:
        pytest.skip(NO_CHROMIUM)
    async with opened(api_keys="on") as doors:
        watch = Watch(doors.url, ["403"])
        async with watched(browser, watch) as page:
            script = f"sessionStorage.setItem('playhead.credential', '{await doors.key('read')}')"
            await page.add_init_script(script)
            await page.goto("/#/dead-letters")
            await expect(page.get_by_role("alert")).to_contain_text("Only the service's own keys")
            await page.goto("/#/health")
            await expect(page.get_by_text("The figures take a credential with the scope ops.")).to_be_visible()
            await expect(page.locator("h1 + .badge")).to_have_text("ok")


# --- health ---


async def test_health_has_figures_and_those_that_are_looked_for(page: Page, http: httpx.AsyncClient, dsn: str) -> None:
    await overdue(dsn)
    await say(http, "/say Hi")
    await page.goto("/#/health")
    await expect(page.locator("h1 + .badge")).to_have_text("ok")
    await expect(page.get_by_role("table", name="Stores and doors").get_by_role("row")).to_have_count(3)
    tile = page.get_by_role("listitem").filter(has_text="Operations overdue")
    await expect(tile).to_have_class(re.compile("bad"))
    await expect(page.get_by_role("listitem").filter(has_text="Followers")).to_contain_text("0")
    await expect(page.get_by_role("listitem").filter(has_text="Events stored")).to_have_count(0)
    await look_again(page)
    await expect(page.get_by_role("listitem").filter(has_text="Events stored")).to_contain_text("/s")
    await expect(page.get_by_role("img", name="Events a second")).to_be_visible()
    await page.get_by_text("All metrics").click()
    await page.get_by_label("Only those with").fill('kind="overdue"')
    await expect(page.get_by_role("table", name="All metrics").get_by_role("row")).to_have_count(2)
    await tile.get_by_role("link").click()
    await expect(page.get_by_role("table", name="Stuck")).to_be_visible()


async def test_a_store_that_is_away_is_shown_and_so_is_its_return(page: Page, watch: Watch, to_redis: Link) -> None:
    watch.expected.append("503")
    stores, badge = page.get_by_role("table", name="Stores and doors"), page.locator("h1 + .badge")
    await page.goto("/#/health")
    await expect(badge).to_have_text("ok")
    to_redis.break_by(Refuse())
    await look_again(page)
    await expect(badge).to_have_text("unavailable")
    await expect(stores.get_by_role("row").filter(has_text="redis")).to_contain_text("away")
    await expect(stores.get_by_role("row").filter(has_text="postgres")).to_contain_text("ok")
    to_redis.heal()
    await look_again(page)
    await expect(badge).to_have_text("ok")


# --- all of them ---


async def test_who_leaves_a_view_leaves_nothing_behind(page: Page, watch: Watch, http: httpx.AsyncClient) -> None:
    watch.expected.append("404")
    session, _ = await say(http, '/tool ask {"question": "Why?"}')
    operation = await begun(http, session)
    await page.clock.install()
    for view in ("tasks", "operations", f"operations/{operation}", "health"):
        await page.goto(f"/#/{view}")
        await expect(page.locator("main table:visible, main article:visible").first).to_be_visible()
    await page.goto("/#/dead-letters")
    await expect(page.get_by_role("alert")).to_contain_text("No RabbitMQ is configured")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    await page.clock.run_for(60_000)
    assert asked == []


async def test_nothing_is_wider_than_a_narrow_screen_and_nobody_is_left_out(
    browser: Browser | None, service: Service, http: httpx.AsyncClient, dsn: str
) -> None:
    """By every rule of axe's that WCAG has, with an operation unfolded; in the other theme by that of contrast."""
    if browser is None:
        pytest.skip(NO_CHROMIUM)
    axe = PACKAGES / "axe-core" / "axe.min.js"
    if not axe.exists():
        pytest.skip(f"{NO_NODE}: not looked at with axe")
    late, failed = await overdue(dsn), await failing(http, dsn)
    screen = {"viewport": {"width": 360, "height": 640}, "color_scheme": "dark"}
    async with watched(browser, Watch(service.url), **screen) as page:
        one = f"?session={(await life(http, failed))['session_id']}"  # axe is slow where there is much
        for view in (f"tasks{one}", f"operations{one}", f"operations/{late}", f"operations/{failed}", "health"):
            await page.goto(f"/#/{view}")
            await expect(page.locator("main table:visible, main article:visible").first).to_be_visible()
            await page.evaluate(
                "document.querySelectorAll('.view:not(.health) details').forEach(each => each.open = true)"
            )
            assert await page.evaluate("document.documentElement.scrollWidth") == 360
            assert await page.evaluate("document.getElementById('main').scrollWidth") == 360
            await page.evaluate(axe.read_text())
            assert await page.evaluate(BROKEN_RULES, ["wcag2a", "wcag2aa", "wcag21aa"]) == []
            await page.emulate_media(color_scheme="light")
            assert await page.evaluate(BROKEN_RULES, ["color-contrast"]) == []
            await page.emulate_media(color_scheme="dark")
