"""The chat of the page, in a browser at a whole service."""

import re

import httpx
import pytest
from playwright.async_api import Browser, Page, Route, expect

from tests.acceptance.waiting import until
from tests.console.chat import ChatPage, counted, said, stored
from tests.console.watching import HIDE, Watch, watched

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_an_answer_is_shown_as_it_comes_and_as_it_is_stored(chat: ChatPage, http: httpx.AsyncClient) -> None:
    await chat.say("/fail rate_limit times=1", "/reason Hm.", '/tool think {"thought": "So."}', "/count 40 rate=40")
    await expect(chat.state).to_have_text("live")
    growing = chat.answers.locator(".part-text")
    await expect(growing).to_contain_text("1 2 3 ")
    assert await growing.text_content() != counted(40)
    await expect(chat.answers).to_contain_text("The model call failed (rate_limit); try 2")
    reasoning = chat.answers.locator("details.part-reasoning")
    await expect(reasoning.get_by_text("Hm.")).to_be_hidden()
    await reasoning.locator("summary").click()
    await expect(reasoning.get_by_text("Hm.")).to_be_visible()
    await chat.ended()
    await expect(reasoning.get_by_text("Hm.")).to_be_visible()  # what was opened stays open when it is stored
    tool = chat.answers.get_by_role("region", name="Tool think")
    await expect(tool).to_contain_text("done")
    await tool.get_by_text("Input and output").click()
    await expect(tool).to_contain_text('"thought": "So."')
    await expect(tool).to_contain_text('"ok"')
    await expect(chat.state).to_have_text("ended: all of it is here")
    question, answer = await stored(http, await chat.session_id())
    assert await chat.text() == said(answer).rstrip() == counted(40)
    await expect(chat.page.get_by_role("article", name="Your message")).to_contain_text(said(question))


async def test_thirty_cuts_in_two_thousand_deltas_lose_nothing(chat: ChatPage, http: httpx.AsyncClient) -> None:
    """And more of both where the machine is slow: then fewer pieces are an event."""
    await chat.say("/say Ready.")
    await chat.ended()
    await chat.page.get_by_label("Cut me at random").check()
    await chat.say("/count 1000000 rate=450")
    await expect(chat.answers.last).to_contain_text(" 2000 ", timeout=40_000)

    async def is_cut_enough() -> bool:
        return await chat.reconnects() >= 30

    await until(is_cut_enough, "thirty cuts")
    await chat.button("Stop").click()
    await chat.ended(2)
    (*_, answer) = await stored(http, await chat.session_id())
    text = said(answer).rstrip()
    assert await chat.text() == text == counted(int(text.rpartition(" ")[2]))


async def test_after_a_reload_in_mid_stream_and_in_a_second_tab_it_goes_on(
    browser: Browser | None, chat: ChatPage, watch: Watch, http: httpx.AsyncClient
) -> None:
    assert browser is not None
    await chat.say("/count 10000 rate=30")
    await expect(chat.answers).to_contain_text("9 10 ")
    await chat.page.reload()
    await expect(chat.answers).to_contain_text("1 2 3 4 5 6 7 8 9 10 ")
    async with watched(browser, watch) as page:
        second = await ChatPage(page).open(await chat.session_id())
        for each in (chat, second):
            await expect(each.state).to_have_text("live")
        await second.button("Stop").click()
        texts = [await ((await each.ended()) and each.text()) for each in (chat, second)]
        assert {*texts, said((await stored(http, await chat.session_id()))[-1]).rstrip()} == {texts[0]}
        await second.say("/say From the other one.")
        await expect(chat.answers).to_have_count(2)
        await expect(chat.answers.last).to_contain_text("From the other one.")
        await expect(chat.page.get_by_role("article", name="Your message").last).to_contain_text("From the other one.")


async def test_what_is_cut_by_hand_stays_cut_until_it_is_resumed(chat: ChatPage, http: httpx.AsyncClient) -> None:
    await chat.say("/count 30 rate=20")
    await expect(chat.answers).to_contain_text("1 2 3 ")
    await chat.button("Cut").click()
    await expect(chat.state).to_have_text("cut")
    at_the_cut = await chat.text()
    session_id = await chat.session_id()

    async def is_stored() -> bool:
        return len(await stored(http, session_id)) == 2

    await until(is_stored, "the end of the answer", seconds=10)
    assert await chat.text() == at_the_cut != counted(30)
    await chat.button("Resume").click()
    await expect((await chat.ended()).locator(".part-text")).to_have_text(counted(30))


async def test_what_the_model_never_saw_comes_back_into_the_field(chat: ChatPage, http: httpx.AsyncClient) -> None:
    await chat.field.fill("/fail validation_error")
    await chat.field.press("Enter")
    await expect(chat.page.get_by_role("alert").filter(has_text="Given back")).to_be_visible()
    await expect(chat.field).to_have_value("/fail validation_error")
    await expect(chat.page.get_by_role("article")).to_have_count(0)
    assert await stored(http, await chat.session_id()) == []


async def test_what_could_not_be_sent_stays_and_is_sent_once(
    chat: ChatPage, http: httpx.AsyncClient, watch: Watch
) -> None:
    """The request is done, and its answer lost, as when a network goes: what is sent again is the same message."""
    watch.expected.append("net::ERR_FAILED")
    lost: list[str] = []

    async def lose(route: Route) -> None:
        kind = route.request.url.rpartition("/")[2]
        if kind not in lost:
            lost.append(kind)
            await route.fetch()
            await route.abort()
        else:
            await route.continue_()

    await chat.page.route(re.compile(r"/sessions(/[^/]+/messages)?$"), lose)
    for _ in range(2):
        await chat.field.fill("/say Once.")
        await chat.field.press("Enter")
        await expect(chat.page.get_by_role("alert").filter(has_text="Not sent")).to_be_visible()
        await expect(chat.field).to_have_value("/say Once.")
    await chat.field.press("Enter")
    await chat.ended()
    session_id = await chat.session_id()
    assert [said(message) for message in await stored(http, session_id)] == ["/say Once.", "Once."]
    assert lost == ["sessions", "messages"]
    titles = [each["title"] for each in (await http.get("/sessions?limit=100")).json()["sessions"]]
    assert titles.count("/say Once.") == 1


async def test_a_draft_outlives_a_reload(chat: ChatPage) -> None:
    await chat.field.fill("Half a thou")
    await chat.page.reload()
    await expect(chat.field).to_have_value("Half a thou")


async def test_stopped_asked_again_and_said_otherwise(chat: ChatPage, http: httpx.AsyncClient) -> None:
    await chat.say("/count 1000 rate=20")
    await expect(chat.answers).to_contain_text("1 2 ")
    await chat.button("Stop").click()
    await expect(chat.page.get_by_text("Cancelled.")).to_be_visible()
    await expect(chat.button("Stop")).to_be_hidden()
    session_id = await chat.session_id()
    first = (await stored(http, session_id))[-1]["id"]
    await chat.page.get_by_role("button", name="Edit").click()
    field = chat.page.get_by_role("textbox", name="Your message, changed")
    await field.fill("/say One.")
    await chat.button("Send again").click()
    await expect(chat.answers).to_contain_text("One.")
    assert [said(message) for message in await stored(http, session_id)] == ["/say One.", "One."]
    second = (await stored(http, session_id))[-1]["id"]
    await chat.button("Answer again").click()

    async def is_another() -> bool:
        return (await stored(http, session_id))[-1]["id"] not in (first, second)

    await until(is_another, "another answer", seconds=10)
    await expect(chat.answers).to_have_count(1)
    await expect(chat.answers).to_contain_text("One.")


async def test_a_message_meanwhile_waits_and_is_let_in(chat: ChatPage) -> None:
    await chat.say("/count 100 rate=30", '/tool think {"thought": "x"}', "/say Done.")
    await expect(chat.answers).to_contain_text("1 2 ")
    await chat.say("/say And this.")
    waiting = chat.page.get_by_role("article", name="Your message").filter(has_text="And this.")
    await expect(waiting).to_contain_text("Waits")
    await expect(chat.answers.last).to_contain_text("And this.", timeout=10_000)
    await expect(waiting).not_to_contain_text("Waits")


async def test_a_failure_is_told_and_is_still_told_after_a_reload(chat: ChatPage) -> None:
    await chat.say("/say Half of it.", "/fail validation_error")
    ending = chat.page.locator(".ending")
    await expect(ending).to_contain_text("Failed (validation_error)")
    await chat.page.reload()
    await expect(ending).to_contain_text("Failed (validation_error)")


async def test_a_follow_up_appears_by_itself(chat: ChatPage) -> None:
    await chat.say('/tool timer {"seconds": 1, "note": "The oven."}', "/say It is set.")
    await chat.ended()
    await expect(chat.answers).to_have_count(2, timeout=10_000)
    await expect(chat.answers.last).to_contain_text("Follow-up")
    await expect(chat.answers.last).to_contain_text("has succeeded")


async def test_a_session_is_called_otherwise_and_deleted(chat: ChatPage, http: httpx.AsyncClient) -> None:
    await chat.say("/say One.")
    await chat.ended()
    await expect(chat.page.get_by_role("heading", level=1)).to_have_text("/say One.")
    await chat.button("Rename").click()
    await chat.page.get_by_role("textbox", name="Title").fill("<b>Mine</b>")
    await chat.button("Save").click()
    sessions = chat.page.get_by_role("navigation", name="Sessions")
    await expect(sessions.locator("[aria-current=page]")).to_contain_text("<b>Mine</b>")
    session_id = await chat.session_id()
    assert (await http.get(f"/sessions/{session_id}")).json()["title"] == "<b>Mine</b>"
    await chat.button("Delete").click()
    await chat.button("Delete it for good?").click()
    await expect(chat.page.get_by_text("Say something.")).to_be_visible()
    await expect(sessions.get_by_text("<b>Mine</b>")).to_have_count(0)
    assert (await http.get(f"/sessions/{session_id}")).status_code == 404


async def test_a_page_that_is_not_seen_for_a_while_holds_no_connection(chat: ChatPage, http: httpx.AsyncClient) -> None:
    await chat.page.clock.install()
    await chat.say("/count 10000 rate=30")
    await expect(chat.answers).to_contain_text("1 2 3 ")
    await chat.page.evaluate(HIDE, True)
    await chat.page.clock.run_for(31_000)
    await expect(chat.state).to_contain_text("cut")
    await chat.page.evaluate(HIDE, False)
    await expect(chat.state).to_have_text("live")
    assert await chat.reconnects() == 1
    await chat.button("Stop").click()
    await chat.ended()
    assert await chat.text() == said((await stored(http, await chat.session_id()))[-1]).rstrip()


AT_THE_END = """() => {
    const each = document.querySelector(".chat-scroll");
    return each.scrollHeight - each.scrollTop - each.clientHeight < 2;
}"""


SHRINK_AND_GROW = """async answer => {
    await new Promise(requestAnimationFrame);
    answer.style.display = "none";
    await new Promise(done => setTimeout(done)); // it is drawn so, and scrolled; who listens is told in the next frame
    answer.style.display = "";
    for (let frames = 0; frames < 3; frames++) await new Promise(requestAnimationFrame);
}"""


async def test_the_end_is_in_sight_until_somebody_scrolls_away(chat: ChatPage) -> None:
    scroll = chat.page.get_by_role("region", name="Messages")
    await chat.say(*(f"/say {number}" for number in range(80)), '/tool ask {"question": "Tea?"}')
    card = chat.answers.get_by_role("article", name="Operation ask")
    await expect(card).to_contain_text("pending")
    await expect(chat.page.get_by_role("textbox", name="Your answer")).to_be_in_viewport()
    await chat.page.wait_for_function(AT_THE_END)
    await chat.page.reload()
    await expect(chat.page.get_by_role("textbox", name="Your answer")).to_be_in_viewport()
    await chat.page.wait_for_function(AT_THE_END)
    await chat.answers.last.evaluate(SHRINK_AND_GROW)
    await chat.page.wait_for_function(AT_THE_END)
    await scroll.evaluate("each => each.scrollTo(0, 0)")
    await chat.page.get_by_role("textbox", name="Your answer").evaluate("each => each.style.height = '600px'")
    await expect(chat.page.get_by_role("article", name="Your message")).to_be_in_viewport()


async def test_no_such_session(watched_page: Page, watch: Watch) -> None:
    watch.expected.append("404")
    chat = await ChatPage(watched_page).open("01a2034b-0000-7000-8000-000000000000")
    await expect(chat.page.get_by_text("There is no such session.")).to_be_visible()
    await expect(chat.field).to_be_hidden()
