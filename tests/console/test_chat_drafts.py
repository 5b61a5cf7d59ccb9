"""What somebody writes in the chat of the page: nothing of it is lost, nothing is said twice."""

import re

import httpx
import pytest
from playwright.async_api import Page, Route, expect

from tests.acceptance.waiting import until
from tests.console.chat import ChatPage, Held, said, stored
from tests.console.watching import Watch

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def unanswered(route: Route) -> None:
    """The service does it, and its answer is lost."""
    await route.fetch()
    await route.abort()


async def ended(http: httpx.AsyncClient, session_id: str, turns: int) -> None:
    async def is_so() -> bool:
        tasks = (await http.get("/tasks", params={"session": session_id})).json()["tasks"]
        return sum(bool(task["finished_at"]) for task in tasks) == turns

    await until(is_so, "the end of all turns")


async def own(http: httpx.AsyncClient, session_id: str) -> list[str]:
    return [said(each) for each in await stored(http, session_id) if each["role"] == "user"]


async def test_all_that_was_given_back_meanwhile_is_given_back(chat: ChatPage, http: httpx.AsyncClient) -> None:
    await chat.say("/say One.")
    await chat.ended()
    await chat.button("Cut").click()
    for line in ("/fail bad_request", "/fail validation_error", "/say Two."):
        await chat.say(line)
    await ended(http, await chat.session_id(), 4)
    await chat.button("Resume").click()
    await chat.ended(2)
    for line in ("/fail bad_request", "/fail validation_error"):
        await expect(chat.field).to_have_value(re.compile(f"^{line}$", re.MULTILINE))
    alert = chat.page.get_by_role("alert").filter(has_text="Given back")
    why = await alert.text_content()
    await chat.page.reload()
    await expect(alert).to_have_text(why or "")
    await chat.field.fill("")
    await expect(alert).to_have_count(0)


async def test_what_is_given_back_before_its_post_is_answered_stays(chat: ChatPage) -> None:
    await chat.say("/say One.")
    await chat.ended()
    held = Held()
    await chat.page.route("**/messages", held)
    await chat.field.fill("/fail bad_request")
    await chat.field.press("Enter")
    await expect(chat.page.get_by_role("alert").filter(has_text="Given back")).to_be_visible()
    held.let_go.set()
    await expect(chat.button("Send")).to_be_enabled()
    await expect(chat.field).to_have_value("/fail bad_request")


async def test_it_is_given_back_though_what_is_being_written_has_the_same_words(chat: ChatPage) -> None:
    await chat.say("/say One.")
    await chat.ended()
    await chat.button("Cut").click()
    await chat.say("/fail bad_request")
    await chat.field.fill("not like /fail bad_requests of mine")
    await chat.button("Resume").click()
    await expect(chat.field).to_have_value("/fail bad_request\nnot like /fail bad_requests of mine")


async def test_who_empties_the_field_says_something_new(chat: ChatPage, watch: Watch, http: httpx.AsyncClient) -> None:
    await chat.say("/say One.")
    await chat.ended()
    watch.expected.append("net::ERR_FAILED")
    await chat.page.route("**/messages", unanswered)
    await chat.field.fill("/say Two.")
    await chat.field.press("Enter")
    await chat.ended(2)
    await expect(chat.field).to_have_value("/say Two.")  # though it was taken: nobody knows
    await chat.page.unroute("**/messages")
    await chat.field.fill("")
    await chat.say("/say Two.")
    await chat.ended(3)
    assert await own(http, await chat.session_id()) == ["/say One.", "/say Two.", "/say Two."]


async def test_of_a_first_message_that_is_refused_no_session_is_left(
    chat: ChatPage, watch: Watch, http: httpx.AsyncClient
) -> None:
    before = (await http.get("/sessions")).json()["sessions"]
    watch.expected.append("413")
    await chat.field.fill("/say " + "x " * 70_000)
    await chat.field.press("Enter")
    await expect(chat.page.get_by_role("alert").filter(has_text="Not sent")).to_be_visible()
    await expect(chat.button("Send")).to_be_enabled()
    assert (await http.get("/sessions")).json()["sessions"] == before
    await chat.say("/say Shorter.")
    await chat.ended()


async def test_a_change_outlives_the_message_that_it_is_of(
    chat: ChatPage, watch: Watch, http: httpx.AsyncClient
) -> None:
    for number, line in enumerate(("/say One.", "/say Two."), 1):
        await chat.say(line)
        await chat.ended(number)
    mine = chat.page.get_by_role("article", name="Your message")
    await mine.nth(1).get_by_role("button", name="Edit").click()
    changed = chat.page.get_by_role("textbox", name="Your message, changed")
    await changed.fill("/say Two and a half.")
    await changed.press("Escape")
    await expect(changed).to_have_count(0)
    await mine.nth(1).get_by_role("button", name="Edit").click()
    await expect(changed).to_have_value("/say Two.")
    await changed.fill("/say Two and a half.")
    session_id = await chat.session_id()
    first = (await stored(http, session_id))[0]["id"]
    message = {"id": first, "role": "user", "parts": [{"type": "text", "text": "/say Other."}]}
    body = {"id": session_id, "trigger": "submit-message", "messageId": first, "messages": [message]}
    (await http.post("/api/chat", json=body)).raise_for_status()
    await expect(chat.field).to_have_value("/say Two and a half.")
    await chat.ended(1)
    await mine.get_by_role("button", name="Edit").click()
    watch.expected.append("net::ERR_FAILED")
    await chat.page.route(f"**/sessions/{session_id}", lambda route: route.abort(), times=1)
    await changed.fill("/say Last.")
    await changed.press("Enter")
    await expect(changed).to_have_count(0)  # it was taken, though it cannot be seen at once
    await expect(chat.field).to_be_focused()
    await expect(await chat.ended(1)).to_contain_text("Last.")
    assert await own(http, session_id) == ["/say Last."]


async def test_a_half_written_answer_outlives_a_reload(chat: ChatPage) -> None:
    await chat.say('/tool ask {"question": "Tea?"}')
    answer = chat.page.get_by_role("textbox", name="Your answer")
    await answer.fill("With a")
    await chat.page.reload()
    await expect(answer).to_have_value("With a")
    await answer.press_sequentially(" scone.")
    await answer.press("Enter")
    await chat.ended(2)
    await expect(chat.answers.last).to_contain_text("With a scone.")
    assert "answer" not in await chat.page.evaluate("() => Object.keys(sessionStorage).join()")


async def test_who_clicks_twice_has_deleted_nothing_and_who_skips_stays(watched_page: Page) -> None:
    chat = await ChatPage(watched_page).open()
    await chat.say("/say One.")
    await chat.ended()
    await chat.button("Delete").dblclick()
    await expect(chat.button("Delete it for good?")).to_be_visible()
    await chat.field.focus()
    address = watched_page.url
    skip = watched_page.get_by_role("link", name="To the content")
    await skip.focus()
    await skip.press("Enter")
    await expect(watched_page.locator("#main")).to_be_focused()
    assert watched_page.url == address
    await watched_page.goto("/#main")
    await watched_page.reload()
    await expect(watched_page.get_by_text("Say something.")).to_be_visible()


async def test_who_goes_by_keys_keeps_their_place(chat: ChatPage) -> None:
    await chat.say("/count 10000 rate=30")
    await expect(chat.state).to_have_text("live")
    for pressed, then in {"Cut": "Resume", "Resume": "Cut"}.items():
        await chat.button(pressed).press("Enter")
        await expect(chat.button(then)).to_be_focused()
    await expect(chat.state).to_have_text("live")
    await chat.button("Stop").press("Enter")
    await chat.ended()
    await expect(chat.field).to_be_focused()
    await chat.button("Rename").press("Enter")
    await chat.page.get_by_role("textbox", name="Title").press("Escape")
    await expect(chat.button("Rename")).to_be_focused()
    await chat.button("Answer again").press("Enter")
    await expect(chat.field).to_be_focused()
    await chat.button("Stop").click()
