"""A task's log on the page, in a browser at a whole service."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import httpx
import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, Route, expect
from redis.asyncio import Redis

from tests.acceptance.client import Client, Stored
from tests.acceptance.waiting import until
from tests.console.log_page import LogPage
from tests.console.watching import HIDE, Watch, watched
from tests.processes import Service, http_to

pytestmark = pytest.mark.asyncio(loop_scope="session")

LINES = (
    *("/fail rate_limit times=1", "/say Hello", '/tool think {"thought": "So."}'),
    *("/reason Hm.", "/say So.") * 15,  # each an event of its own, while numbers may wait for each other
    "/count 100 rate=100",
)
NOBODYS = "01900000-0000-7000-8000-000000000000"


@dataclass(frozen=True, slots=True)
class Told:
    """A log that has ended."""

    task_id: str
    events: list[Stored]

    def n_of(self, kind: str) -> int:
        """The number of the first event of a type."""
        return next(event.n for event in self.events if event.type == kind)

    def part(self, share: float) -> int:
        """The number of the event so far in it: how many there are depends on how many pieces wait for each other."""
        return round(share * len(self.events))

    def text_at(self, n: int) -> str:
        """What the message says behind the first n events."""
        return "".join(event.chunk["delta"] for event in self.events[:n] if event.type == "text-delta").rstrip()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def told(services: tuple[Service, ...]) -> Told:
    """A turn with a retry, a tool and a long answer: some 120 events or more."""
    service = services[0]
    async with http_to(service.url, 20) as http, Redis.from_url(service.redis_url) as redis:
        client = Client(http, redis)
        task_id = await client.post(*LINES)
        await until(lambda: has_ended(client, task_id), "the end")
        return Told(task_id, await client.stored(task_id))


async def has_ended(client: Client, task_id: str) -> bool:
    return await client.status(task_id) == "succeeded"


@pytest_asyncio.fixture(loop_scope="session")
async def log(watched_page: Page, told: Told) -> LogPage:
    """The page of that log, all of it."""
    page = await LogPage(watched_page, told.task_id).open()
    await page.ended()
    return page


async def test_the_head_says_what_the_task_is_and_used(log: LogPage, told: Told) -> None:
    for fact in ("succeeded", "turn", "1, epoch 1", "Steps2", f"Events{len(told.events)}"):
        await expect(log.head).to_contain_text(fact)
    session_id = told.events[0].chunk["messageMetadata"]["sessionId"]
    await expect(log.head.get_by_role("link")).to_have_attribute("href", f"#/chat/{session_id}")
    usage = told.events[-1].chunk["messageMetadata"]["usage"]
    await expect(log.head).to_contain_text(f"{usage['inputTokens']} in, {usage['outputTokens']} out")
    await log.at(len(told.events))
    assert await log.text() == told.text_at(len(told.events))


async def test_the_timeline_shows_where_the_time_went_and_leads_there(log: LogPage, told: Told) -> None:
    spans = await log.spans()
    assert {kind: spans[kind] for kind in ("attempt", "step", "tool", "retry")} == {
        **{"attempt": 1, "step": 2, "tool": 1, "retry": 1}
    }
    assert spans["call"] >= 2
    assert await log.marks() == ["reset", "finish"]
    await log.timeline.locator(".span[data-kind=retry]").click()
    await log.at(told.n_of("data-retry"))
    await log.timeline.get_by_text("As a list").click()
    await log.timeline.get_by_role("link", name="think").click()
    await log.at(told.n_of("tool-input-available"))
    await expect(log.page).to_have_url(re.compile(f"at={told.events[told.n_of('tool-input-available') - 1].position}$"))
    place = log.timeline.get_by_role("group", name="Timeline.")
    await place.press("ArrowLeft")
    await log.at(told.n_of("reset-step"))
    for key in ("+", "+", "-", "0"):
        await place.press(key)
    assert await log.spans() == spans


async def test_an_event_is_gone_to_by_its_position_and_by_the_keys_of_a_list(watched_page: Page, told: Told) -> None:
    half = told.part(0.5)
    log = await LogPage(watched_page, told.task_id).open(told.events[half - 1].position)
    await log.at(half)
    assert await log.text() == told.text_at(half)
    await expect(log.detail).to_contain_text(told.events[half - 1].position)
    for key, n in {"ArrowDown": half + 1, "ArrowUp": half, "Home": 1, "End": len(told.events)}.items():
        await log.list.press(key)
        await log.at(n)
    await log.list.press("PageUp")
    await log.list.press("Enter")
    await expect(log.detail.get_by_role("heading")).to_be_focused()
    await log.list.get_by_text("steps").or_(log.list.locator(".event-row:visible").nth(3)).first.click()
    n = await log.chosen.locator(".event-n").text_content()
    position = told.events[int(n or 0) - 1].position
    await expect(log.detail.get_by_role("link", name="Link")).to_have_attribute(
        "href", f"#/tasks/{told.task_id}?at={position}"
    )
    await expect(watched_page).to_have_url(re.compile(f"at={position}$"))
    await log.open("1700000000000-7")
    await expect(watched_page.get_by_text("There is no event 1700000000000-7 in this log.")).to_be_visible()


async def test_the_address_that_is_gone_to_stays(watched_page: Page, told: Told) -> None:
    await watched_page.clock.install()
    log = await LogPage(watched_page, told.task_id).open()
    await log.ended()
    await watched_page.clock.pause_at(datetime.now(UTC) + timedelta(seconds=10))
    half = told.part(0.5)
    there = f"#/tasks/{told.task_id}?at={told.events[half - 1].position}"
    await log.button("To the beginning").click()  # whose address is said 300 ms later
    await watched_page.clock.run_for(299)
    await watched_page.evaluate(GO, there)
    await watched_page.clock.run_for(2)  # before anything is drawn
    await watched_page.clock.run_for(1000)
    await log.at(half)
    assert watched_page.url.endswith(there)


GO = """there => new Promise(done => {
    addEventListener("hashchange", done, {once: true});
    location.hash = there;
})"""


async def test_of_the_events_those_are_listed_that_are_chosen(log: LogPage, told: Told) -> None:
    families = log.page.get_by_role("region", name="Events")
    assert set(await log.rows()) <= {event.type for event in told.events}
    await families.get_by_role("button", name="text").click()
    await expect(log.list.locator(".event-type", has_text="text-").and_(log.page.locator(":visible"))).to_have_count(0)
    without = [event.n for event in told.events if not event.type.startswith("text-")]
    await expect(families).to_contain_text(f"{len(without)} of {len(told.events)}")
    await log.list.press("Home")
    await log.at(without[0])
    rows = await log.rows()
    assert rows == [told.events[n - 1].type for n in without[: len(rows)]]
    assert len(rows) > 10
    await families.get_by_role("searchbox").fill("THINK")
    await expect(families).to_contain_text(f"3 of {len(told.events)}")
    assert await log.rows() == ["data-input", "tool-input-start", "tool-input-available"]
    await log.list.press("End")
    await log.at(told.n_of("tool-input-available"))


async def test_the_message_is_shown_as_it_was_at_any_event(log: LogPage, told: Told) -> None:
    for n in (told.part(0.7), 1, 12, told.n_of("finish-step"), told.part(0.4), len(told.events)):
        await log.scrub(n)
        await log.at(n)
        await expect(log.message.get_by_role("heading", name=f"at event {n}", exact=False)).to_be_visible()
        await until_text(log, told.text_at(n))
    await log.button("One event back").click()
    await log.at(len(told.events) - 1)
    await log.button("To the beginning").click()
    await log.at(1)
    await log.button("One event on").click()
    await log.at(2)


async def until_text(log: LogPage, text: str) -> None:
    async def is_shown() -> bool:
        return await log.text() == text

    await until(is_shown, f"the message {text[-20:]!r}", seconds=5)


async def test_it_is_replayed_from_any_event_to_the_end_and_nothing_is_asked_for(log: LogPage, told: Told) -> None:
    asked: list[str] = []
    log.page.on("request", lambda request: asked.append(request.url))
    await log.button("To the beginning").click()
    await log.button("Max").click()
    await log.button("Play").click()
    await expect(log.button("Play")).to_be_visible()  # again: it is through
    await log.at(len(told.events))
    begin = told.part(0.3)
    await log.scrub(begin)
    await log.button("1 ×").click()
    await log.button("Play").click()
    await expect(log.slider).not_to_have_attribute("aria-valuetext", re.compile(f"^event {begin} of"))
    await log.button("Pause").click()
    assert begin < int(await log.slider.input_value()) < len(told.events)
    await until_text(log, told.text_at(int(await log.slider.input_value())))
    assert [url for url in asked if "/tasks/" in url] == []


async def test_silence_is_told_and_passed_over(watched_page: Page, client: Client) -> None:
    task_id = await client.post("/say a", '/tool think {"thought": "So."}', "/wait 3", "/say b")
    await until(lambda: has_ended(client, task_id), "the end")
    log = await LogPage(watched_page, task_id).open()
    await log.ended()
    await expect(log.timeline.locator(".span[data-kind=silence]")).to_have_count(1)
    await log.button("Play").click()
    await expect(log.replay).to_contain_text("Silence: ")
    await log.button("Skip it").click()
    await expect(log.button("Play")).to_be_visible(timeout=2500)  # and not only when it is over


async def test_the_log_is_proven_and_had_as_a_file(log: LogPage, told: Told, service: Service) -> None:
    async with http_to(service.url, 20) as http:
        verdict = (await http.get(f"/tasks/{told.task_id}/verify")).json()
        await log.button("Verify").click()
        await expect(log.head).to_contain_text(f"proven{len(told.events)} events, closed")
        await expect(log.head).to_contain_text(verdict["sha256"])
        assert await exported(log) == (f"{told.task_id}.jsonl", await export(http, told, {}))
        await log.page.get_by_label("Redacted").check()
        assert await exported(log) == (f"{told.task_id}.redacted.jsonl", await export(http, told, {"redact": "1"}))


async def exported(log: LogPage) -> tuple[str, list[bytes]]:
    async with log.page.expect_download() as download:
        await log.button("Export").click()
    saved = await download.value
    return saved.suggested_filename, (await saved.path()).read_bytes().splitlines()[1:]


async def export(http: httpx.AsyncClient, told: Told, query: dict[str, str]) -> list[bytes]:
    """All but the manifest, which says when it was made."""
    answer = await http.get(f"/tasks/{told.task_id}/export", params=query)
    return answer.raise_for_status().content.splitlines()[1:]


async def test_a_log_that_is_written_grows_and_stays_at_its_end_or_where_it_is_looked_at(
    watched_page: Page, client: Client, service: Service
) -> None:
    task_id = await client.post("/count 1000000 rate=60")
    log = await LogPage(watched_page, task_id).open()
    await expect(log.state).to_have_text("live")
    await expect(log.button("Export")).to_be_disabled()
    await expect(log.message).to_contain_text("10 11 12")
    await log.scrub(8)
    await log.at(8)
    await expect(log.message).not_to_contain_text("10 11 12")
    await cancel(service, task_id)
    await log.ended()
    await log.at(8)
    await log.button("To the end").click()
    events = await client.stored(task_id)
    await log.at(len(events))
    await expect(log.button("Export")).to_be_enabled()


async def cancel(service: Service, task_id: str) -> None:
    async with http_to(service.url, 20) as http:
        (await http.post(f"/tasks/{task_id}/cancel")).raise_for_status()


async def test_nothing_goes_on_when_it_is_left(watched_page: Page, client: Client, service: Service) -> None:
    task_id = await client.post("/wait 60")
    log = await LogPage(watched_page, task_id).open()
    await expect(log.state).to_have_text("live")
    async with watched_page.expect_event("requestfailed", lambda each: each.url.endswith("/stream")):
        await watched_page.get_by_role("link", name="Health").click()
    await cancel(service, task_id)


async def test_what_is_missing_is_told_in_the_list_and_on_the_timeline(
    watched_page: Page, client: Client, service: Service
) -> None:
    task_id = await client.post("/count 1000000 rate=60")
    async with Redis.from_url(service.redis_url) as redis:
        await until(lambda: has_events(client, task_id, 20), "20 events")
        await redis.xtrim(
            f"playhead:{{{task_id}}}:log", minid=(await client.stored(task_id))[10].position, approximate=False
        )
    log = await LogPage(watched_page, task_id).open()
    await expect(log.timeline.locator(".mark[data-kind=missing]")).to_have_count(1)
    await log.list.press("Home")
    await log.at(11)
    await expect(log.chosen).to_contain_text("10 events are missing")
    await cancel(service, task_id)


async def has_events(client: Client, task_id: str, least: int) -> bool:
    return len(await client.stored(task_id)) >= least


async def test_beyond_its_bound_it_says_so_and_goes_on(watched_page: Page, told: Told) -> None:
    bound, half = told.part(0.4), told.part(0.5)

    async def bounded(route: Route) -> None:
        answer = await route.fetch()
        await route.fulfill(response=answer, body=(await answer.text()).replace("300_000", str(bound)))

    await watched_page.route("**/model/recording.js", bounded)
    log = await LogPage(watched_page, told.task_id).open()
    kept_here = watched_page.get_by_text(f"{bound} events are kept here")
    await expect(kept_here).to_be_visible()
    await log.at(bound)
    await log.open(told.events[2].position)
    await log.at(3)
    await expect(kept_here).to_be_visible()
    await log.open("1700000000000-7")
    await expect(watched_page.get_by_text("There is no event 1700000000000-7 in this log.")).to_be_visible()
    await expect(kept_here).to_be_visible()
    await log.button("Go on from here").click()
    await log.at(2 * bound)
    await until_text(log, told.text_at(2 * bound))
    await log.button("Go on from here").click()
    await log.at(len(told.events))
    await until_text(log, told.text_at(len(told.events)))
    await log.button("Read from the beginning").click()
    await log.at(bound)
    await log.open(told.events[half - 1].position)
    await log.at(half)
    await expect(watched_page.get_by_text(f"This begins at event {half}")).to_be_visible()
    behind = f"{told.events[-1].position.partition('-')[0]}-{len(told.events) + 1}"
    await log.open(behind)
    await expect(watched_page.get_by_text(f"There is no event {behind} in this log.")).to_be_visible()
    await log.at(bound)


@pytest.mark.parametrize(
    "nowhere", ["9999999999999999-999999999999", "9999999999999998-999999999999", "1700000000000-999999999999"]
)
async def test_a_log_that_has_no_event_far_behind_its_end_is_read_from_the_beginning(
    watched_page: Page, watch: Watch, told: Told, nowhere: str
) -> None:
    if nowhere.startswith("9999999999999999"):
        watch.expected.append("400")  # numbers are not so exact: it is no position
    log = await LogPage(watched_page, told.task_id).open(nowhere)
    await expect(watched_page.get_by_text("There is no event")).to_be_visible()
    await log.at(len(told.events))
    await log.ended()
    await log.list.press("Home")
    await log.at(1)
    await expect(watched_page.get_by_text("There is no event")).to_have_count(0)


async def test_an_event_that_is_not_there_yet_is_waited_for(
    watched_page: Page, client: Client, service: Service
) -> None:
    task_id = await client.post("/wait 60")
    await until(lambda: has_events(client, task_id, 3), "3 events")
    log = await LogPage(watched_page, task_id).open("1700000000000-99")
    await expect(watched_page.get_by_text("Event 1700000000000-99 is not there yet.")).to_be_visible()
    await log.at(len(await client.stored(task_id)))
    await cancel(service, task_id)
    await log.ended()
    await expect(watched_page.get_by_text("There is no event 1700000000000-99 in this log.")).to_be_visible()
    await log.at(len(await client.stored(task_id)))


async def test_who_is_told_of_a_bound_can_still_go_on_when_the_service_was_away(
    watched_page: Page, watch: Watch, client: Client, service: Service
) -> None:
    watch.expected.append("net::ERR_FAILED")
    await watched_page.clock.install()
    task_id = await client.post("/count 1000000 rate=60")

    async def bounded(route: Route) -> None:
        answer = await route.fetch()
        await route.fulfill(response=answer, body=(await answer.text()).replace("300_000", "20"))

    await watched_page.route("**/model/recording.js", bounded)
    log = await LogPage(watched_page, task_id).open()
    await expect(log.button("Go on from here")).to_be_visible()
    await watched_page.route(f"**/tasks/{task_id}", lambda route: route.abort())
    away = watched_page.get_by_text("The service does not answer.")
    await watched_page.clock.fast_forward(3000)
    await expect(away).to_be_visible()
    await watched_page.unroute(f"**/tasks/{task_id}")
    await watched_page.clock.fast_forward(15_000)
    await expect(away).to_have_count(0)
    await log.button("Go on from here").click()
    await log.at(40)
    await cancel(service, task_id)


@pytest.mark.parametrize("is_seen_first", [True, False])
async def test_a_log_that_is_not_seen_for_a_while_holds_no_connection(
    watched_page: Page, client: Client, service: Service, is_seen_first: bool
) -> None:
    await watched_page.clock.install()
    task_id = await client.post("/count 1000000 rate=60")
    await watched_page.goto("/#/health")
    if not is_seen_first:
        await watched_page.evaluate(HIDE, True)  # as a link that is opened in a tab behind this one
    async with watched_page.expect_event("requestfailed", lambda each: each.url.endswith("/stream")):
        async with watched_page.expect_response(lambda each: each.url.endswith("/stream")):
            log = await LogPage(watched_page, task_id).open()
        if is_seen_first:
            await expect(log.state).to_have_text("live")
            await watched_page.evaluate(HIDE, True)
        await watched_page.clock.run_for(31_000)
    await watched_page.evaluate(HIDE, False)
    await cancel(service, task_id)
    await log.ended()
    events = await client.stored(task_id)
    await log.at(len(events))


async def test_a_task_of_nobody_is_not_there(watched_page: Page, watch: Watch) -> None:
    watch.expected.append("404")
    await LogPage(watched_page, NOBODYS).open()
    await expect(watched_page.get_by_text("There is no such task.")).to_be_visible()


async def test_it_has_room_on_a_phone(browser: Browser | None, watch: Watch, told: Told) -> None:
    assert browser is not None
    async with watched(browser, watch, viewport={"width": 360, "height": 740}, color_scheme="dark") as page:
        log = await LogPage(page, told.task_id).open()
        await log.ended()
        await log.at(len(told.events))
        assert await page.evaluate(
            "[document.documentElement, document.querySelector('main')].map(e => e.scrollWidth)"
        ) == [*(360, 360)]
