"""The chat of the page while things go wrong, while others act, and for whom it is."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic

import pytest
from playwright.async_api import Browser, expect

from consumers.completions import Completions
from service.access.keys import mint
from service.model.ids import OwnerId
from service.operations.gathering import Gathering
from service.wiring import House, StoreUrls, make_operations, open_app, open_house, open_keys, open_worker
from tests.acceptance.waiting import until
from tests.adapters.rabbits import Rabbit, rabbit_at
from tests.adapters.remote_service import wiping
from tests.console.chat import ChatPage, counted, said, stored
from tests.console.conftest import NO_CHROMIUM
from tests.console.log_page import LogPage
from tests.console.watching import Watch, watched
from tests.http.conftest import served, settings_for
from tests.processes import http_to, serve

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.fixture
def chromium(browser: Browser | None) -> Browser:
    if browser is None:
        pytest.skip(NO_CHROMIUM)
    return browser


async def test_a_worker_that_is_killed_in_mid_answer_costs_a_moment(
    chromium: Browser, tmp_path: Path, store_settings: dict[str, str]
) -> None:
    settings = store_settings | {"LEASE_SECONDS": "1"}
    async with AsyncExitStack() as stack:
        http, victim = await asyncio.gather(
            stack.enter_async_context(serve(tmp_path / "http", settings, "--only", "http")),
            stack.enter_async_context(serve(tmp_path / "victim", settings, "--only", "tasks", ready="model")),
        )
        page = await stack.enter_async_context(watched(chromium, Watch(http.url)))
        chat = await ChatPage(page).open()
        await chat.say("/count 60 rate=30")
        await expect(chat.answers).to_contain_text("9 10 ")
        victim.process.kill()
        await stack.enter_async_context(serve(tmp_path / "heir", settings, "--only", "tasks", ready="model"))
        await expect(chat.answers).to_contain_text("It was taken up again (attempt 2")
        await expect(chat.answers).to_contain_text("what it had said was dropped")
        await chat.ended()
        client = await stack.enter_async_context(http_to(http.url, 20))
        assert await chat.text() == said((await stored(client, await chat.session_id()))[-1]).rstrip() == counted(60)
        await chat.answers.last.get_by_role("link", name="Log").click()
        log = LogPage(page, page.url.rpartition("/")[2])
        await log.ended()
        for shape in (".mark[data-kind=take-over]", ".mark[data-kind=reset]", ".span[data-kind=attempt] >> nth=1"):
            await expect(log.timeline.locator(shape)).to_have_count(1)


@asynccontextmanager
async def careful(stores: StoreUrls, dsn: str, folder: Path, rabbit: Rabbit | None = None) -> AsyncIterator[str]:
    """A service whose agent asks before it has another one wipe, which says over RabbitMQ when it has."""
    stop = asyncio.Event()
    async with wiping(folder) as (_, file):
        settings = settings_for(stores.redis, dsn, tools_file=file)
        async with (
            open_house(settings) as house,
            open_app(house, settings) as app,
            served(app, settings) as url,
            open_worker(house, settings) as worker,
            asyncio.TaskGroup() as group,
        ):
            group.create_task(worker.run(stop))
            if rabbit is not None:
                group.create_task(complete(house, rabbit, stop))
            yield url
            stop.set()


async def complete(house: House, rabbit: Rabbit, stop: asyncio.Event) -> None:
    """Take the completions that come over this broker."""
    gathering, intake = Gathering(make_operations(house)), rabbit.intake()
    try:
        await Completions(intake, gathering, lambda: datetime.now(UTC), monotonic, lambda _: None).run(stop)
    finally:
        await gathering.close()
        await intake.close()


async def test_what_was_approved_on_the_page_ends_over_rabbitmq_while_it_is_cut(
    chromium: Browser, stores: StoreUrls, dsn: str, tmp_path: Path, amqp_url: str
) -> None:
    async with AsyncExitStack() as stack:
        rabbit = await stack.enter_async_context(rabbit_at(amqp_url))
        url = await stack.enter_async_context(careful(stores, dsn, tmp_path, rabbit))
        http = await stack.enter_async_context(http_to(url, 20))
        page = await stack.enter_async_context(watched(chromium, Watch(url)))
        chat = await ChatPage(page).open()
        await chat.say("/tool wipe {}", "/say Never said: a question ends the turn.")
        card = chat.answers.get_by_role("article", name="Operation wipe")
        await expect(card).to_contain_text("pending")
        await card.get_by_role("button", name="Approve").click()
        await expect(card).to_contain_text("succeeded")
        await chat.ended(2)
        follow_up = chat.answers.nth(1)
        await expect(follow_up).to_contain_text("Follow-up")
        work = follow_up.get_by_role("article", name="Operation wipe")
        await expect(work).to_contain_text("an external service does it")
        await chat.button("Cut").click()
        session_id = await chat.session_id()
        listed = (await http.get("/operations", params={"session": session_id, "status": "pending"})).json()
        (operation,) = listed["operations"]
        done = {"operation_id": operation["id"], "success": True, "result": {"wiped": 7}}
        await rabbit.publish(json.dumps(done).encode(), message_id="m1")

        async def is_told() -> bool:
            return len(await stored(http, session_id)) == 4

        await until(is_told, "the follow-up", seconds=10)
        assert await chat.answers.count() == 2
        await chat.button("Resume").click()
        await chat.ended(3)
        await expect(chat.answers.last).to_contain_text('"wiped":7')
        await expect(work).to_contain_text("succeeded")
        await work.get_by_role("link", name="Log").click()
        log = LogPage(page, page.url.rpartition("/")[2])
        await log.ended()
        await expect(log.timeline.locator(".span[data-kind=operation]")).to_have_count(1)


async def test_what_is_denied_is_not_done(chromium: Browser, stores: StoreUrls, dsn: str, tmp_path: Path) -> None:
    async with careful(stores, dsn, tmp_path) as url, watched(chromium, Watch(url)) as page:
        chat = await ChatPage(page).open()
        await chat.say("/tool wipe {}")
        card = chat.answers.get_by_role("article", name="Operation wipe")
        await card.get_by_role("button", name="Deny").click()
        await chat.ended(2)
        await expect(chat.answers.last.get_by_role("region", name="Tool wipe")).to_contain_text("denied")


async def test_who_is_asking_is_asked_and_what_is_foreign_is_not_there(
    chromium: Browser, tmp_path: Path, store_settings: dict[str, str]
) -> None:
    settings = store_settings | {"API_KEYS": "on"}
    async with AsyncExitStack() as stack:
        service = await stack.enter_async_context(serve(tmp_path / "log", settings))
        keys = {owner: await key_of(store_settings["POSTGRES_URL"], owner) for owner in ("ann", "bob")}
        watch = Watch(service.url, ["401", "404"])
        pages = [await stack.enter_async_context(watched(chromium, watch)) for _ in keys]
        ann, bob = [await ChatPage(page).open() for page in pages]
        for chat, key in ((ann, "ph_wrong"), (ann, keys["ann"]), (bob, keys["bob"])):
            await chat.page.get_by_label("API key or token").fill(key)
            await chat.page.get_by_role("button", name="Sign in").click()
            if key == "ph_wrong":
                await expect(chat.page.get_by_text("does not take this credential")).to_be_visible()
        await ann.say("/say Mine alone.")
        await ann.ended()
        session_id = await ann.session_id()
        await bob.open(session_id)
        await expect(bob.page.get_by_text("There is no such session.")).to_be_visible()
        task = await ann.answers.get_by_role("link", name="Log").get_attribute("href")
        await bob.page.goto(f"/{task}")
        await expect(bob.page.get_by_text("There is no such task.")).to_be_visible()
        await expect(bob.page.get_by_text("Mine alone.")).to_have_count(0)
        await ann.page.reload()
        await expect(ann.answers).to_contain_text("Mine alone.")
        await ann.button("Sign out").click()
        await expect(ann.page.get_by_label("API key or token")).to_be_visible()
        await expect(ann.page.get_by_text("Mine alone.")).to_have_count(0)


async def key_of(postgres_url: str, owner: str) -> str:
    text, key = mint(OwnerId(owner), ("read", "write"), "", None)
    async with open_keys(settings_for("redis://127.0.0.1", postgres_url)) as keys:
        await keys.create(key)
    return text
