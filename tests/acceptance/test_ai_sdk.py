"""What `useChat({resume: true})` of npm `ai` 7 shows, in a Node of its own, against a whole service."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from service.client import Playhead
from service.http.chat import NO_APPROVAL
from service.model.ids import TaskId
from service.model.position import Position
from service.wiring import StoreUrls, open_app, open_house, open_worker
from tests.acceptance.client import Client
from tests.acceptance.hooks import NO_AI_SDK, Hook, Hooks, Shown, hooks_in_node
from tests.acceptance.readers import SseReader, raw_stream
from tests.acceptance.waiting import until
from tests.adapters.remote_service import wiping
from tests.http.conftest import served, settings_for
from tests.processes import Service, http_to

pytestmark = pytest.mark.asyncio(loop_scope="session")

COUNTED = "".join(f"{number} " for number in range(1, 31))
FAILED = "[code:validation_error] The request failed validation. Please try rephrasing."


class App:
    """An app that has a chat with this service: its server's side, and the page that it shows."""

    def __init__(self, url: str, http: httpx.AsyncClient, hooks: Hooks, session_id: str) -> None:
        self.url = url
        self.http = http
        self._hooks = hooks
        self.session_id = session_id

    async def stored(self) -> list[dict[str, Any]]:
        """The conversation as the service has it, as an app would load it."""
        session = (await self.http.get(f"/sessions/{self.session_id}")).raise_for_status().json()
        return [{name: message[name] for name in ("id", "role", "parts")} for message in session["messages"]]

    def page(self, messages: list[dict[str, Any]] | None = None) -> Any:
        """A page with the hook on it."""
        return self._hooks.open(self.url, self.session_id, messages or [])

    async def post(self, path: str) -> int:
        return (await self.http.post(path)).status_code

    async def status(self, task_id: str) -> str:
        return (await self.http.get(f"/tasks/{task_id}")).raise_for_status().json()["status"]

    async def runs(self, task_id: str) -> bool:
        return await self.status(task_id) == "running"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def hooks(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Hooks]:
    async with hooks_in_node(tmp_path_factory.mktemp("node") / "log") as opened:
        if opened is None:
            pytest.skip(NO_AI_SDK)
        yield opened


@pytest_asyncio.fixture(loop_scope="session")
async def app(service: Service, hooks: Hooks) -> AsyncIterator[App]:
    async with http_to(service.url, 20) as http:
        session = (await http.post("/sessions")).raise_for_status().json()
        yield App(service.url, http, hooks, session["id"])


@pytest_asyncio.fixture(loop_scope="session")
async def hook(app: App) -> AsyncIterator[Hook]:
    """The hook of a page that was just opened: there is nothing to resume."""
    async with app.page() as opened:
        shown = await opened.see(answers=1)
        assert (shown.status, shown.messages, shown.error, shown.answers) == ("ready", [], None, [204])
        yield opened


async def test_pitfall_73_a_chat_looks_as_it_does_when_it_is_loaded_again(app: App, hook: Hook) -> None:
    await hook.send("/reason let me see", "/say Hello there")
    shown = await hook.settled()
    assert (shown.status, shown.error, shown.answers) == ("ready", None, [204, 200])
    assert shown.texts == [("user", "/reason let me see\n/say Hello there"), ("assistant", "Hello there")]
    assert [part["type"] for part in shown.answer["parts"]] == ["step-start", "reasoning", "text"]
    assert shown.answer["metadata"]["status"] == "succeeded"
    assert shown.answer["metadata"]["sessionId"] == app.session_id
    assert [message["id"] for message in shown.messages] == [message["id"] for message in await app.stored()]
    for part in shown.answer["parts"]:
        part.pop("id", None)  # the hook's own name for a part, which it does without
    assert [message["parts"] for message in shown.messages] == [message["parts"] for message in await app.stored()]
    assert [end["finishReason"] for end in shown.finished] == ["stop"]
    await hook.send("/say Goodbye")
    shown = await hook.settled()
    assert [text for _, text in shown.texts[2:]] == ["/say Goodbye", "Goodbye"]


async def test_pitfall_17_a_page_that_is_loaded_again_in_mid_answer_shows_all_of_it(app: App) -> None:
    async with app.page() as first:
        await first.send("/count 30 rate=20")
        shown = await first.see(says="5 ")
        assert (shown.status, shown.error) == ("streaming", None)
    async with app.page(await app.stored()) as second:
        again = await second.see(says="30 ", settled=True)
        assert (again.status, again.error, again.answers) == ("ready", None, [200])
        assert again.texts == [("user", "/count 30 rate=20"), ("assistant", COUNTED)]
        assert again.answer["id"] == shown.answer["id"]
    async with app.page(await app.stored()) as third:
        after = await third.see(answers=1, settled=True)
        assert (after.status, after.error, after.answers) == ("ready", None, [204])
        assert after.texts == again.texts


@pytest.mark.parametrize("how", ["stop", "cancel"])
async def test_pitfall_25_what_is_stopped_keeps_what_was_said(app: App, hook: Hook, how: str) -> None:
    await hook.send("/count 1000 rate=50")
    task_id = (await hook.see(says="3 ")).answer["metadata"]["taskId"]
    path, answered = {
        "stop": (f"/api/chat/{app.session_id}/stop", {204}),
        "cancel": (f"/tasks/{task_id}/cancel", {200, 202}),
    }[how]
    assert {await app.post(path), await app.post(path)} <= answered
    shown = await hook.settled()
    assert (shown.status, shown.error) == ("ready", None)
    assert shown.texts[-1][1].startswith("1 2 3 ")
    assert shown.answer["metadata"]["status"] == "cancelled" == await app.status(task_id)
    assert [end["finishReason"] for end in shown.finished] == ["interrupted"]
    assert await app.post(path) in answered


async def test_an_edited_message_takes_the_place_of_what_came_after_it(app: App, hook: Hook) -> None:
    await hook.send("/say one")
    await hook.settled()
    await hook.send("/say two")
    first = (await hook.settled()).messages[0]["id"]
    await hook.send("/say three", instead_of=first)
    shown = await hook.settled()
    assert (shown.status, shown.error) == ("ready", None)
    assert shown.texts == [("user", "/say three"), ("assistant", "three")]
    assert [message["id"] for message in shown.messages] == [message["id"] for message in await app.stored()]
    assert shown.messages[0]["id"] == first


async def test_another_answer_takes_the_place_of_the_first(app: App, hook: Hook) -> None:
    await hook.send("/say one")
    before = await hook.settled()
    await hook.call("regenerate")
    shown = await hook.settled()
    assert (shown.status, shown.error) == ("ready", None)
    assert shown.texts == before.texts == [("user", "/say one"), ("assistant", "one")]
    assert shown.answer["id"] != before.answer["id"]
    assert [message["id"] for message in shown.messages] == [message["id"] for message in await app.stored()]


async def test_pitfall_72_an_answer_that_fails_shows_why_and_keeps_what_was_said(app: App, hook: Hook) -> None:
    await hook.send("/say Once upon a time", "/fail validation_error")
    shown = await hook.settled()
    assert (shown.status, shown.error) == ("error", FAILED)
    assert shown.texts[1:] == [("assistant", "Once upon a time")]
    assert shown.answer["metadata"]["status"] == "failed"
    await hook.send("/say Go on")
    shown = await hook.settled()
    assert (shown.status, shown.error, shown.texts[-1][1]) == ("ready", None, "Go on")


async def test_a_step_that_is_done_again_shows_once(hook: Hook) -> None:
    await hook.send("/say Hello", "/fail rate_limit times=1")
    shown = await hook.settled()
    assert (shown.status, shown.error) == ("ready", None)
    assert shown.texts[1:] == [("assistant", "Hello")]
    assert "data-retry" in [part["type"] for part in shown.data]


async def test_a_message_that_was_given_back_can_be_said_again_as_it_was_or_otherwise(app: App, hook: Hook) -> None:
    await hook.send("/fail validation_error")
    shown = await hook.settled()
    assert (shown.status, shown.error) == ("error", FAILED)
    (back,) = [part["data"] for part in shown.data if part["type"] == "data-bounce-back"]
    assert (back["content"], back["messageId"]) == ("/fail validation_error", shown.messages[0]["id"])
    assert await app.stored() == []

    await hook.call("regenerate")
    again = await hook.settled()
    assert (again.status, again.error) == ("error", FAILED)
    assert len([part for part in again.data if part["type"] == "data-bounce-back"]) == 2
    assert len((await app.http.get(f"/sessions/{app.session_id}/tasks")).json()["tasks"]) == 2

    await hook.send("/say Better", instead_of=shown.messages[0]["id"])
    better = await hook.settled()
    assert (better.status, better.error) == ("ready", None)
    assert better.texts == [("user", "/say Better"), ("assistant", "Better")]
    assert [message["id"] for message in better.messages] == [message["id"] for message in await app.stored()]


async def test_a_message_that_is_sent_while_a_turn_runs_gets_its_own_answer(app: App, hook: Hook) -> None:
    await hook.send("/count 30 rate=20")
    await hook.see(says="3 ")
    await hook.send("/say And now?")
    shown = await hook.settled(says="And now?")
    assert (shown.status, shown.error, shown.answers) == ("ready", None, [204, 200, 200])
    assert shown.texts == [
        ("user", "/count 30 rate=20"),
        ("assistant", COUNTED),
        ("user", "/say And now?"),
        ("assistant", "And now?"),
    ]
    assert [message["id"] for message in shown.messages] == [message["id"] for message in await app.stored()]


async def test_what_is_refused_is_shown_as_it_is_said(app: App, hook: Hook) -> None:
    await hook.send("  ")
    shown = await hook.settled()
    assert (shown.status, shown.error) == ("error", "A message needs some text.")
    await hook.call("sendMessage", files=[{"type": "file", "mediaType": "image/png", "url": "data:image/png;base64,"}])
    shown = await hook.settled()
    assert shown.error == "A message takes text only: files and other parts cannot be sent yet."
    assert shown.answers == [204, 422, 422]


async def test_an_answer_that_is_gone_on_with_says_nothing_more(app: App, hook: Hook) -> None:
    await hook.send("/say one")
    before = await hook.settled()
    await hook.call("sendMessage")
    shown = await hook.settled()
    assert (shown.status, shown.error, shown.messages) == ("ready", None, before.messages)
    assert [end["finishReason"] for end in shown.finished] == ["stop", "interrupted"]


async def test_a_hook_an_event_source_and_the_python_client_follow_one_task(
    app: App, hook: Hook, client: Client
) -> None:
    """And where one of the other two stands, the other can go on."""
    await hook.send("/count 30 rate=20")
    task_id = (await hook.see(says="5 ")).answer["metadata"]["taskId"]
    async with raw_stream(app.url, task_id) as cut:
        await cut.receive_until(8)
    reader, followed = SseReader(task_id), []
    async with Playhead(app.url) as playhead:
        async for event in playhead.follow(TaskId(task_id)):
            followed.append((str(event.position), event.data.decode()))
            if len(followed) == 12:
                break
        reader.pairs = followed.copy()
        await reader.read_to_the_end(app.url)
        stands = Position.parse(reader.pairs[9][0])
        tail = [
            (str(event.position), event.data.decode()) async for event in playhead.follow(TaskId(task_id), after=stands)
        ]
    shown = await hook.settled()
    log = [event.pair for event in await client.stored(task_id)]
    assert reader.pairs == log
    assert tail == log[10:]
    assert shown.texts == [("user", "/count 30 rate=20"), ("assistant", COUNTED)]


# --- approvals --------------------------------------------------------------------------------------------------------


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def careful_url(stores: StoreUrls, dsn: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """A service whose agent asks before it has another one wipe."""
    stopping = asyncio.Event()
    async with wiping(tmp_path_factory.mktemp("wiping")) as (_, file):
        settings = settings_for(stores.redis, dsn, tools_file=file)
        async with (
            open_house(settings) as house,
            open_app(house, settings) as doors,
            served(doors, settings) as url,
            open_worker(house, settings) as worker,
            asyncio.TaskGroup() as group,
        ):
            group.create_task(worker.run(stopping))
            yield url
            stopping.set()


@pytest_asyncio.fixture(loop_scope="session")
async def careful(careful_url: str, hooks: Hooks) -> AsyncIterator[App]:
    async with http_to(careful_url, 20) as http:
        session = (await http.post("/sessions")).raise_for_status().json()
        yield App(careful_url, http, hooks, session["id"])


@pytest_asyncio.fixture(loop_scope="session")
async def careful_hook(careful: App) -> AsyncIterator[Hook]:
    """The hook of a page that was just opened."""
    async with careful.page() as opened:
        await opened.see(answers=1)
        yield opened


def wipe(then: str) -> str:
    return f"/tool wipe {json.dumps({'then': then})}"


def calls(shown: Shown) -> list[dict[str, Any]]:
    return [part for part in shown.answer["parts"] if part["type"].startswith("tool-")]


def states(shown: Shown) -> list[str]:
    return [part["state"] for part in calls(shown)]


async def answer(hook: Hook, call: dict[str, Any], *, approved: bool, **more: Any) -> None:
    await hook.call("addToolApprovalResponse", id=call["approval"]["id"], approved=approved, **more)


ANSWERS: dict[str, tuple[dict[str, Any], str, str]] = {
    "a yes": ({"approved": True}, "output-available", "Wiped."),
    "a no": ({"approved": False, "reason": "not now\n/say Then not."}, "output-denied", "Then not."),
}


@pytest.mark.parametrize(("said", "state", "text"), ANSWERS.values(), ids=ANSWERS)
async def test_the_message_that_asks_goes_on_when_it_is_answered(
    careful: App, careful_hook: Hook, said: dict[str, Any], state: str, text: str
) -> None:
    """By one post; and what is said next is said to an agent that knows of it."""
    await careful_hook.send("/say Shall I?", wipe("/say Wiped."))
    asked = await careful_hook.settled(answers=2)
    assert (asked.status, states(asked), asked.finished[-1]["finishReason"]) == (
        "ready",
        ["approval-requested"],
        "tool-calls",
    )
    await answer(careful_hook, calls(asked)[0], **said)
    shown = await careful_hook.settled(says=text, answers=3)
    assert (shown.status, shown.error, states(shown)) == ("ready", None, [state])
    assert shown.texts[1:] == [("assistant", f"Shall I?{text}")]
    assert shown.answer["id"] == asked.answer["id"]
    await careful_hook.send("/say Goodbye")
    shown = await careful_hook.settled(says="Goodbye")
    assert (shown.status, shown.error) == ("ready", None)
    assert shown.answers == [204, 200, 200, 200]  # it has not posted by itself again
    assert [end["finishReason"] for end in shown.finished] == ["tool-calls", "stop", "stop"]
    async with careful.page(await careful.stored()) as later:
        again = await later.see(answers=1, settled=True)
        assert (again.status, again.error, again.answers) == ("ready", None, [204])
        assert "".join(said for role, said in again.texts if role == "assistant") == f"Shall I?{text}Goodbye"


async def test_two_answers_are_posted_together_and_both_are_gone_on_with(careful_hook: Hook) -> None:
    await careful_hook.send(wipe("/say One."), wipe("/say Two."))
    one, two = calls(await careful_hook.settled(answers=2))
    await answer(careful_hook, one, approved=True)
    waits = await careful_hook.settled()
    assert (states(waits), waits.answers) == (["approval-responded", "approval-requested"], [204, 200])
    await answer(careful_hook, two, approved=False, reason="no\n/say Not two.")
    shown = await careful_hook.settled(says="Not two.", answers=3)
    assert (shown.status, shown.error, states(shown)) == ("ready", None, ["output-available", "output-denied"])
    assert shown.texts[1:] == [("assistant", "One.Not two.")]
    await careful_hook.send("/say Goodbye")
    assert (await careful_hook.settled(says="Goodbye")).answers == [204, 200, 200, 200]


async def test_a_follow_up_may_ask_again(careful_hook: Hook) -> None:
    await careful_hook.send(wipe(wipe("/say Both wiped.")))
    await answer(careful_hook, calls(await careful_hook.settled(answers=2))[0], approved=True)
    asked = await careful_hook.settled(answers=3)
    assert states(asked) == ["output-available", "approval-requested"]
    await answer(careful_hook, calls(asked)[1], approved=True)
    shown = await careful_hook.settled(says="Both wiped.", answers=4)
    assert (shown.status, shown.error, states(shown)) == ("ready", None, ["output-available"] * 2)


async def test_a_page_that_is_loaded_again_amid_a_follow_up_shows_all_of_it(careful: App, careful_hook: Hook) -> None:
    await careful_hook.send(wipe("/count 30 rate=20"))
    await answer(careful_hook, calls(await careful_hook.settled(answers=2))[0], approved=True)
    await careful_hook.see(says="5 ")
    async with careful.page(await careful.stored()) as second:
        shown = await second.see(says="30 ", settled=True)
        assert (shown.status, shown.error, shown.answers) == ("ready", None, [200])
        assert (shown.texts[-1], states(shown)) == (("assistant", COUNTED), ["output-available"])


async def test_what_a_service_says_later_has_a_message_of_its_own(careful: App, careful_hook: Hook) -> None:
    """Behind a yes the message that asked says what was begun; what comes of that the app asks for when it runs."""
    await careful_hook.send("/say Shall I?", "/tool wipe {}")
    await answer(careful_hook, calls(await careful_hook.settled(answers=2))[0], approved=True)
    begun = await careful_hook.settled(says="has begun", answers=3)
    (call,) = calls(begun)
    started = call["output"]
    assert (begun.status, begun.error, call["state"], call["preliminary"]) == ("ready", None, "output-available", True)
    assert (started["status"], len(begun.messages)) == ("started", 2)
    assert begun.texts[1][1].startswith("Shall I?")

    done = {"success": True, "result": "/say Wiped.\n/count 1000 rate=50"}
    (await careful.http.post(f"/operations/{started['operation_id']}/complete", json=done)).raise_for_status()
    await until(lambda: careful.runs(started["task_id"]), "the follow-up")
    await careful_hook.call("resumeStream")
    await careful_hook.see(says="Wiped.\n1 2 3 ")
    assert await careful.post(f"/api/chat/{careful.session_id}/stop") == 204
    shown = await careful_hook.settled()
    assert (shown.status, shown.error, shown.answers) == ("ready", None, [204, 200, 200, 200])
    assert shown.messages[:-1] == begun.messages
    assert [each["output"] for each in calls(shown)] == [done["result"]]
    assert shown.answer["metadata"]["taskId"] == started["task_id"]
    assert shown.answer["id"] == (await careful.stored())[-1]["id"]


async def test_a_question_is_answered_beside_the_hook_which_is_told_so(app: App, hook: Hook) -> None:
    await hook.send('/tool ask {"question": "Tea?"}')
    (call,) = calls(await hook.settled(answers=2))
    await answer(hook, call, approved=True)
    shown = await hook.settled(answers=3)
    assert (shown.status, shown.error, shown.answers[-1]) == ("error", NO_APPROVAL, 422)
    path, reply = f"/operations/{call['approval']['id']}/approve", {"answer": "Yes.\n/count 30 rate=20"}
    follow_up = (await app.http.post(path, json=reply)).raise_for_status().json()["task_id"]
    await until(lambda: app.runs(follow_up), "the follow-up")  # what is only queued is nothing to resume
    await hook.call("resumeStream")
    shown = await hook.settled(says="30 ")
    assert (shown.status, shown.error, states(shown)) == ("ready", None, ["output-available"])
