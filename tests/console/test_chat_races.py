"""The chat of the page where things happen in another order than one thinks of first."""

import asyncio
from collections.abc import Awaitable, Callable

import httpx
import pytest
from playwright.async_api import Route, expect

from tests.acceptance.waiting import until
from tests.console.chat import ChatPage, Held, counted, said, stored
from tests.console.watching import Watch

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def lost(route: Route) -> None:
    """The service does it, and its answer is lost."""
    await route.fetch()
    await route.abort()


async def elsewhere(chat: ChatPage) -> None:
    await chat.page.get_by_role("link", name="Health").click()
    await expect(chat.page.get_by_role("heading", level=1, name="Health")).to_be_visible()


async def left_while_sending(chat: ChatPage, line: str) -> Held:
    """Go elsewhere before the answer to a post is here."""
    held = Held()
    await chat.page.route("**/messages", held)
    await chat.field.fill(line)
    await chat.field.press("Enter")
    await held.answered.wait()
    await elsewhere(chat)
    return held


async def texts(http: httpx.AsyncClient, session_id: str) -> list[str]:
    return [said(each) for each in await stored(http, session_id) if each["role"] == "user"]


async def test_who_leaves_while_a_message_is_sent_has_said_it_once(chat: ChatPage) -> None:
    await chat.say("/say One.")
    await chat.ended()
    session_id = await chat.session_id()
    held = await left_while_sending(chat, "/say Two.")
    async with chat.page.expect_response("**/messages"):
        held.let_go.set()
    await chat.page.wait_for_function("() => !Object.keys(sessionStorage).some(name => name.includes('draft'))")
    await chat.open(session_id)
    await chat.ended(2)
    await expect(chat.field).to_have_value("")


async def test_who_comes_back_while_a_message_is_sent_finds_it_so_and_has_said_it_once(
    chat: ChatPage, http: httpx.AsyncClient
) -> None:
    await chat.say("/say One.")
    await chat.ended()
    session_id = await chat.session_id()
    held = await left_while_sending(chat, "/say Two.")
    await chat.page.go_back()
    await expect(chat.field).to_have_value("/say Two.")
    await expect(chat.button("Send")).to_be_disabled()
    await chat.field.press("Enter")
    held.let_go.set()
    await expect(chat.field).to_have_value("")
    await expect(chat.button("Send")).to_be_enabled()
    await chat.ended(2)
    assert await texts(http, session_id) == ["/say One.", "/say Two."]


async def test_what_the_tab_has_no_room_for_is_said_all_the_same(chat: ChatPage) -> None:
    """An error on the console would fail this."""
    await chat.page.evaluate("() => sessionStorage.setItem('other', 'a'.repeat(5 * 1024 * 1024 - 60))")
    await chat.say("/say " + "One. " * 40)
    await expect(await chat.ended()).to_contain_text("One. One.")


async def test_who_goes_elsewhere_from_a_new_chat_is_not_fetched_back(chat: ChatPage) -> None:
    held = await left_while_sending(chat, "/say One.")
    held.let_go.set()
    await chat.page.wait_for_function("() => !Object.keys(sessionStorage).some(name => name.includes('draft'))")
    await expect(chat.page).to_have_url("/#/health")


async def reload(chat: ChatPage) -> None:
    await chat.page.reload()


async def stay(chat: ChatPage) -> None:
    pass


@pytest.mark.parametrize("meanwhile", [stay, reload])
async def test_what_was_taken_without_an_answer_is_said_once_when_it_is_sent_again(
    chat: ChatPage, watch: Watch, http: httpx.AsyncClient, meanwhile: Callable[[ChatPage], Awaitable[None]]
) -> None:
    watch.expected.append("net::ERR_FAILED")
    listed = {each["id"] for each in (await http.get("/sessions")).json()["sessions"]}
    for number, line in enumerate(("/say One.", "/say Two."), 1):
        await chat.page.route("**/messages", lost)
        await chat.field.fill(line)
        await chat.field.press("Enter")
        await expect(chat.page.get_by_role("alert").filter(has_text="Not sent")).to_be_visible()
        await chat.page.unroute("**/messages")
        await meanwhile(chat)
        await expect(chat.field).to_have_value(line)
        await chat.field.press("Enter")
        await expect(chat.page.get_by_role("article", name="Your message")).to_have_count(number)
        await chat.ended(number)
    assert await texts(http, await chat.session_id()) == ["/say One.", "/say Two."]
    now = {each["id"] for each in (await http.get("/sessions")).json()["sessions"]}
    assert now - listed == {await chat.session_id()}


async def test_a_message_is_sent_whatever_characters_it_begins_with(chat: ChatPage) -> None:
    await chat.say(f"/say {'x' * 53}😀😀😀")
    await expect(await chat.ended()).to_contain_text("😀😀😀")


async def test_an_answer_stays_while_what_is_stored_is_read_as_it_was_before_its_end(chat: ChatPage) -> None:
    await chat.say("/say One.")
    await chat.ended()
    held = Held()
    is_stored = f"**/sessions/{await chat.session_id()}"
    await chat.say("/count 60 rate=30")
    await expect(chat.answers.last).to_contain_text("1 2 3 ")
    await chat.page.route(is_stored, held)
    await chat.page.evaluate("id => new BroadcastChannel('playhead.sessions').postMessage(id)", await chat.session_id())
    await held.answered.wait()
    await expect(chat.answers.last).to_contain_text("59 60")
    await expect(chat.state).to_have_text("ended: all of it is here")
    await chat.page.evaluate(COUNT_ANSWERS)
    held.let_go.set()
    await expect(chat.button("Answer again")).to_be_visible()  # what is stored has taken its place
    assert await chat.page.evaluate("() => fewest") == 2


COUNT_ANSWERS = """() => {
    const count = () => document.querySelectorAll(".answer").length;
    globalThis.fewest = count();
    new MutationObserver(() => (globalThis.fewest = Math.min(fewest, count())))
        .observe(document.querySelector(".thread"), {childList: true});
}"""


async def test_what_is_stored_is_not_taken_back_by_a_log_that_lags_behind(
    chat: ChatPage, watch: Watch, http: httpx.AsyncClient
) -> None:
    watch.expected.append("net::ERR_FAILED")
    await chat.say("/count 30 rate=20")
    await expect(chat.answers).to_contain_text("1 2 3 ")
    await chat.button("Cut").click()
    session_id = await chat.session_id()

    async def is_stored() -> bool:
        return len(await stored(http, session_id)) == 2

    await until(is_stored, "the end of the answer", seconds=10)
    text, came_back = chat.answers.last.locator(".part-text"), asyncio.Event()

    async def nothing(route: Route) -> None:
        came_back.set()
        await route.abort()

    async def three_events(route: Route) -> None:
        """When what is stored is shown."""
        body = await (await route.fetch()).text()
        await expect(text).to_have_text(counted(30))
        await route.fulfill(body="\n\n".join(body.split("\n\n")[:4]) + "\n\n", content_type="text/event-stream")

    await chat.page.route("**/tasks/*/stream", nothing)
    await chat.page.route("**/tasks/*/stream", three_events, times=1)
    before = await chat.page.locator(".reader-facts").text_content()
    await chat.button("Resume").click()
    await came_back.wait()
    await expect(chat.page.locator(".reader-facts")).not_to_have_text(before or "")
    await expect(text).to_have_text(counted(30))
    await chat.page.unroute_all(behavior="wait")
    await expect(chat.state).to_have_text("ended: all of it is here")
    await expect(chat.button("Answer again")).to_be_visible()


async def test_a_log_that_cannot_be_followed_does_not_end_the_chat(chat: ChatPage, watch: Watch) -> None:
    watch.expected.append("404")

    async def gone(route: Route) -> None:
        await route.fulfill(status=404, json={"detail": "There is no such task."})

    await chat.page.route("**/tasks/*/stream", gone)
    await chat.say("/count 30 rate=15")
    await expect(chat.state).to_have_text("refused")
    await chat.ended()
    await expect(chat.button("Stop")).to_be_hidden()
    await expect(chat.button("Answer again")).to_be_visible()
    await chat.page.unroute("**/tasks/*/stream")
    await chat.say("/count 10000 rate=30")
    await expect(chat.state).to_have_text("live")
    await expect(chat.answers.last).to_contain_text("1 2 3 ")
    await chat.button("Stop").click()
    await chat.ended(2)
