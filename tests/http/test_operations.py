"""Operations over HTTP: completed by whoever may, once, whatever comes again; answered, cancelled and looked up."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio
import structlog
from standardwebhooks import Webhook

from service.access.keys import mint
from service.adapters.postgres import Database, postgres_pool
from service.adapters.postgres_operations import PostgresOperations
from service.http.operations import UNKNOWN_RETRY_SECONDS
from service.model.caller import EVERYONES, Scope
from service.model.ids import OwnerId
from service.model.operation import MAX_DELIVERIES, Executor, Operation
from service.settings import Settings
from service.wiring import House, StoreUrls, make_operations, open_app, open_house
from tests.http.bad_requests import NO_ANSWER_TO_ANYTHING
from tests.http.conftest import Doors, begun, claimed, running, served, settings_for
from tests.http.memory import SECRETS, TOOLS, bearer, opened
from tests.http.stall import LONGEST_STALL_SECONDS, longest_stall
from tests.http.wire import Answer, Header, ask
from tests.sessions.endings import ended_with

pytestmark = pytest.mark.asyncio(loop_scope="module")

NOBODYS = "01890000-0000-7000-8000-000000000000"
UNKNOWN = (404, str(UNKNOWN_RETRY_SECONDS))


@dataclass
class Service:
    """A service that asks everybody who they are, and has two remote tools."""

    url: str
    house: House

    async def key(self, *scopes: Scope, owner: str | None = "ann") -> Header:
        text, new = mint(None if owner is None else OwnerId(owner), scopes, "", None)
        await self.house.keys.create(new)
        return bearer(text)

    async def begin(
        self, tool: str = "render", executor: Executor = "remote", deadline_seconds: float | None = 3600
    ) -> Operation:
        return await begun(self.house, tool, executor, owner="ann", deadline_seconds=deadline_seconds)

    async def post(self, path: str, said: Any, *headers: Header) -> Answer:
        body = said if isinstance(said, bytes) else json.dumps(said).encode()
        return await ask(self.url, "POST", f"/operations/{path}", body, headers)

    async def complete(self, operation_id: str, said: Any, *headers: Header) -> Answer:
        return await self.post(f"{operation_id}/complete", said, *headers)

    async def shown(self, operation: Operation) -> Any:
        """As its owner sees it."""
        answer = await ask(self.url, "GET", f"/operations/{operation.id}", None, [await self.key("read")])
        assert (answer.status, answer.headers["cache-control"]) == (200, "no-store, private")
        return answer.json

    async def follow_ups(self, operation: Operation) -> int:
        """How many tasks of its session are queued."""
        tasks = await self.house.tasks.of_session(EVERYONES, operation.session_id, 100, 0)
        return sum(task.status == "queued" for task in tasks or ())


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["memory", "postgres"])
async def service(request: pytest.FixtureRequest, stores: StoreUrls, dsn: str) -> AsyncIterator[Service]:
    async with AsyncExitStack() as stack:
        if request.param == "memory":
            doors = await stack.enter_async_context(opened(api_keys="on"))
            yield Service(doors.url, doors.house)
        else:
            yield await postgres_service(stack, settings_for(stores.redis, dsn, api_keys="on"))


async def postgres_service(stack: AsyncExitStack, settings: Settings) -> Service:
    """A process of its own, as far as stores can tell."""
    house = replace(await stack.enter_async_context(open_house(settings)), tools=TOOLS)
    app = await stack.enter_async_context(open_app(house, settings))
    return Service(await stack.enter_async_context(served(app, settings)), house)


def signed(
    body: Any, tool: str = "render", name: str = "msg-1", moved_seconds: float = 0
) -> tuple[bytes, list[Header]]:
    """A body, and the headers with which this tool signs it."""
    data = json.dumps(body)
    at = datetime.now(UTC) + timedelta(seconds=moved_seconds)
    signature = Webhook(SECRETS[tool]).sign(name, at, data)
    seconds = str(int(at.timestamp()))
    return data.encode(), [("webhook-id", name), ("webhook-timestamp", seconds), ("webhook-signature", signature)]


def assert_problem(answer: Answer, status: int, error_type: str) -> None:
    assert answer.status == status, answer.body
    assert answer.json["error_type"] == error_type
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store, private"
    assert answer.headers["x-request-id"]


# --- completing -------------------------------------------------------------------------------------------------------


async def test_a_tool_completes_its_operation_without_a_key(service: Service) -> None:
    operation = await service.begin()
    body, headers = signed({"operation_id": operation.id, "success": True, "result": {"url": "https://a.test"}})
    answer = await service.complete(operation.id, body, *headers)
    assert (answer.status, answer.headers["cache-control"]) == (200, "no-store, private")
    completion_id = answer.json["completion_id"]
    assert answer.json == {
        "status": "succeeded",
        "operation_id": operation.id,
        "task_id": operation.task_id,
        "completion_id": completion_id,
    }
    shown = await service.shown(operation)
    assert {name: shown[name] for name in ("status", "outcome", "error_type", "has_follow_up", "delivered")} == {
        "status": "succeeded",
        "outcome": {"result": {"url": "https://a.test"}},
        "error_type": None,
        "has_follow_up": True,
        "delivered": 1,
    }
    (delivery,) = shown["deliveries"]
    assert {name: delivery[name] for name in ("id", "door", "by", "delivery_id", "disposition", "times")} == {
        "id": completion_id,
        "door": "http",
        "by": "tool render",
        "delivery_id": "msg-1",
        "disposition": "accepted",
        "times": 1,
    }
    assert await service.follow_ups(operation) == 1


async def test_a_key_completes_what_is_its_owner_s_and_a_service_s_key_anybody_s(service: Service) -> None:
    keys = [await service.key("complete"), await service.key("complete", owner=None), await service.key("ops")]
    for name, text in [*keys, ("X-API-Key", str(keys[0][1]).removeprefix("Bearer "))]:
        operation = await service.begin()
        assert (await service.complete(operation.id, {"success": True}, (name, text))).status == 200
    operation = await service.begin()
    bob = await service.complete(operation.id, {"success": True}, await service.key("complete", owner="bob"))
    assert (bob.status, bob.headers["retry-after"]) == UNKNOWN
    for scopes in (("read", "write"), ("write",)):
        assert_problem(
            await service.complete(operation.id, {"success": True}, await service.key(*scopes)), 403, "forbidden"
        )
    assert (await service.shown(operation))["status"] == "pending"


async def test_the_local_owner_completes_without_showing_anything(doors: Doors) -> None:
    operation = await begun(doors.house)
    answer = await ask(doors.url, "POST", f"/operations/{operation.id}/complete", b'{"success": true}')
    assert answer.status == 200
    _, headers = signed({"success": True})
    refused = await ask(doors.url, "POST", f"/operations/{operation.id}/complete", b'{"success": true}', headers)
    assert_problem(refused, 401, "unauthenticated")


RESULTS: list[Any] = [{}, "", None, 0, False, [], 0.0, "\0", "\u20ac", [None], {"": {}}, 2**53 + 1, "x" * 200_000]


@pytest.mark.parametrize("result", RESULTS, ids=lambda result: repr(result)[:20])
async def test_pitfall_36_a_result_is_kept_as_it_came(service: Service, result: Any) -> None:
    operation, key = await service.begin(), await service.key("complete")
    answer = await service.complete(operation.id, {"success": True, "result": result}, key)
    assert answer.status == 200
    kept = (await service.shown(operation))["outcome"]
    assert (json.dumps(kept), set(kept)) == (json.dumps({"result": result}), {"result"})  # 0 is not False there
    again = await service.complete(operation.id, {"success": True, "result": result}, key)
    assert again.json == {**answer.json, "duplicate": True}
    question = await service.begin("ask", "person", None)
    assert (await service.post(f"{question.id}/approve", {"answer": result}, await service.key("write"))).status == 200
    assert json.dumps((await service.shown(question))["outcome"]) == json.dumps({"result": result})


async def test_a_failure_has_its_type_and_a_sentence_for_people(service: Service) -> None:
    key = await service.key("complete")
    for said, outcome in (
        ({}, {"error_type": "unknown", "message": "Something went wrong. Please try again."}),
        (
            {"error_type": "timeout"},
            {"error_type": "timeout", "message": "The request took too long. Please try again."},
        ),
        ({"error": "No paper.", "error_type": "out_of_paper"}, {"error_type": "out_of_paper", "message": "No paper."}),
        (
            {"error": "No.", "details": {"n": 0}},
            {"error_type": "unknown", "message": "No.", "details": {"n": 0}},
        ),
    ):
        operation = await service.begin()
        answer = await service.complete(operation.id, {"success": False, **said}, key)
        assert (answer.status, answer.json["status"]) == (200, "failed")
        shown = await service.shown(operation)
        assert (shown["outcome"], shown["error_type"]) == (outcome, outcome["error_type"])


async def test_pitfall_34_another_outcome_is_conflicting_and_the_first_one_stays(service: Service) -> None:
    operation, key = await service.begin(), await service.key("complete")
    first = await service.complete(operation.id, {"success": True, "result": {"a": 1, "b": 2}}, key)
    again = await service.complete(operation.id, b'{"result": {"b": 2, "a": 1}, "success": true}', key)
    assert (again.status, again.json) == (200, {**first.json, "duplicate": True})
    for said in ({"success": True, "result": {"a": 1}}, {"success": False}, {"success": True}):
        assert_problem(await service.complete(operation.id, said, key), 409, "conflicting")
    shown = await service.shown(operation)
    assert shown["outcome"] == {"result": {"a": 1, "b": 2}}
    assert [each["disposition"] for each in shown["deliveries"]] == ["accepted", "duplicate", *["conflicting"] * 3]
    assert await service.follow_ups(operation) == 1


async def test_pitfall_32_what_comes_after_the_deadline_is_conflicting_and_kept(service: Service) -> None:
    operation = await service.begin(deadline_seconds=0)
    async with asyncio.timeout(5):
        while (await service.shown(operation))["status"] == "pending":
            await make_operations(service.house).end_overdue(100)
    late = await service.complete(operation.id, {"success": True}, await service.key("complete"))
    assert_problem(late, 409, "conflicting")
    shown = await service.shown(operation)
    assert (shown["status"], shown["error_type"]) == ("failed", "timeout")
    first, *_ = shown["deliveries"]
    assert (first["by"], first["disposition"]) == ("clock", "accepted")
    assert shown["deliveries"][-1]["disposition"] == "conflicting"


async def test_pitfall_31_what_comes_too_early_is_to_come_again(service: Service) -> None:
    key = await service.key("complete", owner=None)
    answer = await service.complete(NOBODYS, {"success": True}, key)
    assert_problem(answer, 404, "not_found")
    assert (answer.status, answer.headers["retry-after"]) == UNKNOWN
    progress = await service.complete(NOBODYS, {"progress": 1}, key)
    assert (progress.status, progress.headers["retry-after"]) == UNKNOWN


async def test_pitfall_35_another_task_s_id_is_refused_and_finds_nothing(service: Service) -> None:
    operation, other, key = await service.begin(), await service.begin(), await service.key("complete")
    for task_id in (other.task_id, operation.turn_id, NOBODYS, operation.id, "x"):
        for said in ({"success": True}, {"progress": 1}):
            answer = await service.complete(operation.id, {**said, "task_id": task_id}, key)
            assert_problem(answer, 422, "validation_error")
            unknown = await service.complete(NOBODYS, {**said, "task_id": other.task_id}, key)
            assert (unknown.status, unknown.headers["retry-after"]) == UNKNOWN
    for each in (operation, other):
        shown = await service.shown(each)
        assert (shown["status"], shown["progress"], shown["delivered"]) == ("pending", None, 0)
    named = {"task_id": operation.task_id, "operation_id": operation.id}
    assert (await service.complete(operation.id, {"progress": 1, **named}, key)).status == 202
    assert (await service.complete(operation.id, {"success": True, **named}, key)).status == 200


async def test_progress_is_noted_until_the_end(service: Service) -> None:
    operation, key = await service.begin(), await service.key("complete")
    for progress in (0, {"percent": 40}, None, "almost"):
        answer = await service.complete(operation.id, {"progress": progress}, key)
        assert (answer.status, answer.json) == (202, {"status": "pending", "operation_id": operation.id})
        assert (await service.shown(operation))["progress"] == progress
    assert (await service.complete(operation.id, {"success": True}, key)).status == 200
    assert_problem(await service.complete(operation.id, {"progress": 1}, key), 409, "conflicting")
    shown = await service.shown(operation)
    assert (shown["progress"], shown["delivered"]) == ("almost", 1)


async def test_a_message_of_a_name_is_one_message(service: Service) -> None:
    operation, key = await service.begin(), await service.key("complete")
    for header, name in (("Idempotency-Key", "a"), ("webhook-id", "b" * 255)):
        for progress in (header, "replayed"):
            assert (await service.complete(operation.id, {"progress": progress}, key, (header, name))).status == 202
        assert (
            await service.complete(operation.id, {"progress": "x"}, key, ("Idempotency-Key", name[:128]))
        ).status == 202
        assert (await service.shown(operation))["progress"] == (header if header != "webhook-id" else "x")
    for _ in range(3):
        assert (await service.complete(operation.id, {"success": True}, key, ("Idempotency-Key", "end"))).status == 200
    (delivery,) = (await service.shown(operation))["deliveries"]
    assert (delivery["delivery_id"], delivery["times"]) == ("end", 3)


# --- signatures -------------------------------------------------------------------------------------------------------


async def test_pitfall_40_a_signed_request_that_is_sent_again_changes_nothing(service: Service) -> None:
    operation = await service.begin()
    early, late = (
        signed({"operation_id": operation.id, "progress": percent}, name=f"at-{percent}") for percent in (10, 90)
    )
    for body, headers in (early, late, early, late, early):
        assert (await service.complete(operation.id, body, *headers)).status == 202
    renamed = [*early[1], ("Idempotency-Key", "fresh")]
    assert (await service.complete(operation.id, early[0], *renamed)).status == 202
    assert (await service.shown(operation))["progress"] == 90
    body, headers = signed({"operation_id": operation.id, "success": True}, name="end")
    first = await service.complete(operation.id, body, *headers)
    again = await service.complete(operation.id, body, *headers, ("Idempotency-Key", "fresh"))
    assert (again.status, again.json) == (200, {**first.json, "duplicate": True})
    (delivery,) = (await service.shown(operation))["deliveries"]
    assert (delivery["delivery_id"], delivery["times"]) == ("end", 2)
    assert await service.follow_ups(operation) == 1


async def test_pitfall_40_a_signed_request_is_good_for_the_operation_that_it_names_alone(service: Service) -> None:
    """The path is not signed: who saw a request could send it to another operation of the same tool."""
    operation, other = await service.begin(), await service.begin()
    for said in ({"success": True}, {"progress": 1}):
        body, headers = signed({"operation_id": operation.id, **said})
        assert_problem(await service.complete(other.id, body, *headers), 422, "validation_error")
        body, headers = signed(said)
        assert_problem(await service.complete(other.id, body, *headers), 422, "validation_error")
    shown = await service.shown(other)
    assert (shown["status"], shown["progress"], shown["delivered"]) == ("pending", None, 0)


async def test_pitfall_40_a_signature_that_is_not_quite_it_gets_nowhere(service: Service) -> None:
    operation = await service.begin()
    said = {"operation_id": operation.id, "success": True}
    body, headers = signed(said)
    message_id, seconds, signature = headers
    wrong = [
        (body + b" ", headers),
        (body, [("webhook-id", "msg-2"), seconds, signature]),
        (body, [message_id, ("webhook-timestamp", str(int(str(seconds[1])) + 1)), signature]),
        (body, [message_id, seconds, ("webhook-signature", str(signature[1])[:-3] + "AA=")]),
        (body, [seconds, signature]),
        (body, [message_id, signature]),
        (body, [message_id, seconds]),
        (body, [*headers, await service.key("complete", owner=None)]),
        (body, [*headers, signature]),
        signed(said, moved_seconds=-310),
        signed(said, moved_seconds=310),
    ]
    told = set()
    for sent, shown in wrong:
        answer = await service.complete(operation.id, sent, *shown)
        assert_problem(answer, 401, "unauthenticated")
        told.add(answer.body)
    assert len(told) == 1
    assert (await service.shown(operation))["delivered"] == 0


async def test_pitfall_52_a_tool_cannot_see_another_tool_s_operations(service: Service) -> None:
    operation, answers = await service.begin("search"), []
    for operation_id in (operation.id, NOBODYS):
        for said in ({"success": True}, {"progress": 1}, {"success": True, "task_id": NOBODYS}):
            body, headers = signed({"operation_id": operation_id, **said}, "render")
            answer = await service.complete(operation_id, body, *headers)
            answers.append((answer.status, answer.headers["retry-after"], answer.body))
    assert len(set(answers)) == 1
    assert answers[0][:2] == UNKNOWN
    assert (await service.shown(operation))["progress"] is None
    body, headers = signed({"operation_id": operation.id, "success": True}, "search")
    assert (await service.complete(operation.id, body, *headers)).status == 200


async def test_a_signature_opens_no_other_route(service: Service) -> None:
    operation = await service.begin()
    body, headers = signed({})
    for what in ("cancel", "approve"):
        assert_problem(await service.post(f"{operation.id}/{what}", body, *headers), 401, "unauthenticated")
    assert_problem(await ask(service.url, "GET", "/operations", None, headers), 401, "unauthenticated")


async def test_a_tool_s_completion_is_told_without_its_words(service: Service) -> None:
    operation = await service.begin()
    body, headers = signed({"operation_id": operation.id, "success": False, "error": "hush", "details": "hush"})
    with structlog.testing.capture_logs() as logs:
        await service.complete(operation.id, body, *headers)
        await service.complete(operation.id, body.replace(b"hush", b"hus"), *headers)
    (told,) = [line for line in logs if line["event"] == "completion_accepted"]
    assert (told["by"], told["operation_id"], told["task_id"]) == ("tool render", operation.id, operation.task_id)
    assert [line["reason"] for line in logs if line["event"] == "unauthenticated"] == ["wrong_signature"]
    assert not [line for line in logs if line["event"] == "owners_crossed"]
    assert "hush" not in str(logs)
    assert "whsec" not in str(logs)
    assert str(headers[2][1]) not in str(logs)


# --- cancelling and answering -----------------------------------------------------------------------------------------


async def test_an_operation_is_cancelled_as_often_as_it_is_asked_for_and_the_agent_is_told(service: Service) -> None:
    operation, key = await service.begin(), await service.key("write")
    answers = [await service.post(f"{operation.id}/cancel", b"", key) for _ in range(3)]
    assert [answer.status for answer in answers] == [200] * 3
    assert {answer.json["status"] for answer in answers} == {"cancelled"}
    shown = await service.shown(operation)
    assert (shown["outcome"], shown["has_follow_up"]) == ({"reason": "cancelled by owner"}, True)
    (delivery,) = shown["deliveries"]  # a repeat is not kept: what comes from services would have less room
    assert delivery["by"].startswith("key ")
    assert await service.follow_ups(operation) == 1
    late = await service.complete(operation.id, {"success": True}, await service.key("complete"))
    assert_problem(late, 409, "conflicting")


async def test_what_has_ended_is_not_cancelled_any_more(service: Service) -> None:
    operation = await service.begin()
    await service.complete(operation.id, {"success": True}, await service.key("complete"))
    answer = await service.post(f"{operation.id}/cancel", b"", await service.key("ops"))
    assert (answer.status, answer.json["status"], answer.json["outcome"]) == (200, "succeeded", {"result": None})
    assert (await service.shown(operation))["delivered"] == 1


# --- tried again ------------------------------------------------------------------------------------------------------


async def followed_up_in_vain(service: Service) -> Operation:
    """An operation of Ann's whose follow-up has failed."""
    house = service.house
    claim = await running(house, "ann")
    operation = await begun(house, claim=claim)
    await house.queue.end(claim, ended_with(claim, "."))
    await house.queue.close(claim)
    await service.complete(operation.id, {"success": True}, await service.key("complete"))
    follow_up = await claimed(house, operation.task_id)
    await house.queue.end(follow_up, replace(ended_with(follow_up, "."), status="failed", error_type="timeout"))
    await house.queue.close(follow_up)
    return operation


async def test_a_follow_up_that_failed_is_redriven_once_by_who_may(service: Service) -> None:
    operation, key = await followed_up_in_vain(service), await service.key("write")
    for nobodys in (await service.key("write", owner="bob"), await service.key("write", owner=None)):
        assert_problem(await service.post(f"{operation.id}/redrive", b"", nobodys), 404, "not_found")
    first, again, ops = [
        await service.post(f"{operation.id}/redrive", b"", each)
        for each in (key, key, await service.key("ops", owner=None))
    ]
    assert [answer.status for answer in (first, again, ops)] == [202] * 3
    task_id = first.json["task_id"]
    assert first.json == {"operation_id": operation.id, "task_id": task_id, "stream": f"/tasks/{task_id}/stream"}
    assert first.json == again.json == ops.json
    assert task_id != operation.task_id
    assert await service.follow_ups(operation) == 1
    shown = await service.shown(operation)
    accepted, redriven = shown["deliveries"]
    assert (accepted["disposition"], redriven["disposition"]) == ("accepted", "redriven")
    assert redriven["by"].startswith("key ")
    assert (redriven["status"], redriven["outcome"]) == ("succeeded", None)


async def test_what_has_not_failed_is_not_redriven(service: Service) -> None:
    operation = await service.begin()
    answer = await service.post(f"{operation.id}/redrive", b"", await service.key("write"))
    assert_problem(answer, 409, "nothing_failed")
    assert (await service.shown(operation))["deliveries"] == []


async def test_dead_letters_are_shown_and_sent_again_by_who_asked() -> None:
    async with opened(api_keys="on") as doors:
        letters, ops = doors.letters, [bearer(await doors.key("ops", owner=None))]
        unreadable, *failed = [
            letters.add(*said)
            for said in (("unreadable", b"\xff" * 5000), ("failed", b'{"a": 1}'), ("failed", b"x", None))
        ]
        listed = (await ask(doors.url, "GET", "/dead-letters", None, ops)).json["dead_letters"]
        assert [letter["id"] for letter in listed] == [each.id for each in (unreadable, *failed)]
        assert (listed[0]["size"], listed[0]["body"]) == (5000, "\ufffd" * 4096)
        assert (listed[1]["reason"], listed[1]["body"], listed[1]["app_id"]) == ("failed", '{"a": 1}', "render")
        assert listed[2]["app_id"] is None
        first = await ask(doors.url, "GET", "/dead-letters?limit=1", None, ops)
        assert [letter["id"] for letter in first.json["dead_letters"]] == [unreadable.id]

        async def redrive(said: Any) -> Any:
            answer = await ask(doors.url, "POST", "/dead-letters/redrive", json.dumps(said).encode(), ops)
            assert answer.status == 200
            return answer.json

        assert await redrive({"id": failed[0].id}) == {"redriven": 1}
        assert await redrive({"id": failed[0].id}) == {"redriven": 0}
        assert await redrive({"reason": "failed"}) == {"redriven": 1}
        assert await redrive({}) == {"redriven": 1}
        assert [letter for _, letter in letters.redriven] == [*failed, unreadable]
        assert {by[:4] for by, _ in letters.redriven} == {"key "}


async def test_where_there_is_no_broker_there_are_no_dead_letters(stores: StoreUrls, dsn: str) -> None:
    async with AsyncExitStack() as stack:
        service = await postgres_service(stack, settings_for(stores.redis, dsn, api_keys="on"))
        ops = await service.key("ops", owner=None)
        for method, path in (("GET", "/dead-letters"), ("POST", "/dead-letters/redrive")):
            assert_problem(await ask(service.url, method, path, None, [ops]), 404, "no_broker")


# --- a person ---------------------------------------------------------------------------------------------------------

YES, NO, OTHER_NO = {"approved": True}, {"approved": False}, {"approved": False, "reason": "Too dear."}


@pytest.mark.parametrize(
    ("said", "status", "outcome", "others"),
    [
        (YES, "succeeded", {"result": {"approved": True}}, [NO, OTHER_NO]),
        (NO, "cancelled", {}, [YES]),
        (OTHER_NO, "cancelled", {"reason": "Too dear."}, [YES]),
    ],
    ids=["yes", "no", "no for a reason"],
)
async def test_a_person_says_yes_or_no_once(
    service: Service, said: Any, status: str, outcome: Any, others: list[Any]
) -> None:
    operation, key = await service.begin("delete_all", "person", None), await service.key("write")
    path = f"{operation.id}/approve"
    first, again = [await service.post(path, said, key) for _ in range(2)]
    assert (first.status, first.json["status"], first.json["task_id"]) == (200, status, operation.task_id)
    assert (again.status, again.json) == (200, {**first.json, "duplicate": True})
    for other in others:
        assert_problem(await service.post(path, other, key), 409, "conflicting")
    shown = await service.shown(operation)
    assert (shown["status"], shown["outcome"], shown["has_follow_up"]) == (status, outcome, True)
    assert await service.follow_ups(operation) == 1


async def test_a_question_is_replied_to_and_what_is_to_be_done_is_approved(service: Service) -> None:
    key = await service.key("write")
    question, approval, remote = (
        await service.begin("ask", "person", None),
        await service.begin("delete_all", "person", None),
        await service.begin(),
    )
    for operation, said in ((question, YES), (question, NO), (approval, {"answer": 1}), (remote, YES)):
        assert_problem(await service.post(f"{operation.id}/approve", said, key), 422, "validation_error")
    for operation in (question, approval, remote):
        shown = await service.shown(operation)
        assert (shown["status"], shown["delivered"]) == ("pending", 0)
    for scopes, owner, status in (
        (("complete", "read", "ops"), "ann", 403),
        (("write",), "bob", 404),
        (("write",), None, 404),
    ):
        for operation, said in ((question, {"answer": 1}), (remote, YES)):
            answer = await service.post(f"{operation.id}/approve", said, await service.key(*scopes, owner=owner))
            assert answer.status == status
    first = await service.post(f"{question.id}/approve", {"answer": "blue"}, key)
    assert (first.status, first.json["status"]) == (200, "succeeded")
    other = await service.post(f"{question.id}/approve", {"answer": "green"}, key)
    assert_problem(other, 409, "conflicting")


async def test_what_is_no_answer_ends_nothing(service: Service) -> None:
    key = await service.key("write")
    asked = [await service.begin("ask", "person", None), await service.begin("delete_all", "person", None)]
    for operation in asked:
        for body in NO_ANSWER_TO_ANYTHING:
            assert_problem(await service.post(f"{operation.id}/approve", body, key), 422, "validation_error")
        assert (await service.shown(operation))["delivered"] == 0


async def test_what_was_deleted_is_conflicting_to_services_and_not_there_for_people(service: Service) -> None:
    operation, question = await service.begin(), await service.begin("ask", "person", None)
    for each in (operation, question):
        await service.house.sessions.delete(EVERYONES, each.session_id)
    late = await service.complete(operation.id, {"success": True}, await service.key("complete", owner=None))
    assert_problem(late, 409, "conflicting")
    key = await service.key("read", "write")
    for path, said in (
        (f"{operation.id}/cancel", b""),
        (f"{question.id}/approve", {"answer": 1}),
    ):
        assert_problem(await service.post(path, said, key), 404, "not_found")
    assert (await ask(service.url, "GET", f"/operations/{operation.id}", None, [key])).status == 404


# --- looking up -------------------------------------------------------------------------------------------------------


async def test_operations_are_listed_by_what_is_asked_newest_first(service: Service) -> None:
    key = await service.key("read", "complete", owner="ann")
    overdue = await service.begin("search", deadline_seconds=0)
    plain, person = await service.begin("search"), await service.begin("ask", "person", None)
    ended = await service.begin("search")
    await service.complete(ended.id, {"success": False, "error_type": "timeout", "details": "long"}, key)

    async def listed(query: str) -> list[str]:
        ids, path = list[str](), f"/operations?{query}"
        while path:
            answer = await ask(service.url, "GET", path, None, [key])
            assert (answer.status, answer.headers["cache-control"]) == (200, "no-store, private")
            ids += [each["id"] for each in answer.json["operations"]]
            path = answer.json["earlier"]
        return ids

    mine = [ended.id, person.id, plain.id, overdue.id]
    assert [each for each in await listed("limit=1") if each in mine] == mine
    assert (await listed("limit=100"))[:4] == mine
    assert (await listed("tool=search&limit=2"))[:3] == [ended.id, plain.id, overdue.id]
    assert (await listed("status=failed"))[0] == ended.id
    assert (await listed("executor=person&status=pending"))[0] == person.id
    assert await listed(f"session={plain.session_id}") == [plain.id]
    assert await listed("session=none") == await listed("tool=none") == []
    assert overdue.id in await listed("stuck=1")
    assert {plain.id, person.id, ended.id}.isdisjoint(await listed("stuck=1"))
    (entry,) = (await ask(service.url, "GET", f"/operations?session={ended.session_id}", None, [key])).json[
        "operations"
    ]
    assert (entry["error_type"], entry["stream"]) == ("timeout", f"/tasks/{ended.task_id}/stream")
    assert {"outcome", "arguments", "deliveries"}.isdisjoint(entry)  # a hundred of these could be long


async def test_an_operation_says_what_it_waits_for(service: Service) -> None:
    operation = await service.begin()
    shown = await service.shown(operation)
    left = datetime.fromisoformat(shown["deadline"]) - datetime.now(UTC)
    assert timedelta(minutes=59) < left <= timedelta(minutes=60)
    told = ("status", "tool", "executor", "arguments", "outcome", "progress", "has_follow_up", "ended_at", "deliveries")
    assert {name: shown[name] for name in told} == {
        "status": "pending",
        "tool": "render",
        "executor": "remote",
        "arguments": {"n": 1},
        "outcome": None,
        "progress": None,
        "has_follow_up": False,
        "ended_at": None,
        "deliveries": [],
    }
    key = await service.key("read")
    waiting = f"/tasks?session={operation.session_id}&kind=operation&status=waiting"
    (task,) = (await ask(service.url, "GET", waiting, None, [key])).json["tasks"]
    assert (task["id"], task["operation_id"], task["message_id"]) == (operation.task_id, operation.id, None)
    assert shown["task_id"] == task["id"]


async def test_what_is_answered_is_bounded_however_much_was_said(service: Service) -> None:
    operation, key = await service.begin(), await service.key("complete")
    for n in range(MAX_DELIVERIES + 3):
        said = {"success": True, "result": f"{n}" + "x" * 100_000}
        assert (await service.complete(operation.id, said, key)).status == (200 if n == 0 else 409)
    shown = await service.shown(operation)
    assert (shown["delivered"], len(shown["deliveries"])) == (MAX_DELIVERIES + 3, MAX_DELIVERIES)
    assert {each["outcome"] for each in shown["deliveries"]} == {None}
    assert all(each["outcome_bytes"] > 100_000 for each in shown["deliveries"])
    assert len(shown["outcome"]["result"]) == 100_001


# --- at once, and while others are at work ----------------------------------------------------------------------------


async def test_pitfall_33_of_two_outcomes_at_once_on_two_pods_one_is_taken(stores: StoreUrls, dsn: str) -> None:
    settings = settings_for(stores.redis, dsn, api_keys="on")
    async with AsyncExitStack() as stack, asyncio.timeout(60):
        pods = [await postgres_service(stack, settings) for _ in range(2)]
        key = await pods[0].key("complete")
        for _ in range(10):
            operation = await pods[0].begin()
            said = [{"success": True, "result": n} for n in (1, 1, 2, 2, 3, 3)]
            asked = [pods[n % 2].complete(operation.id, each, key) for n, each in enumerate(said)]
            answers = await asyncio.gather(*asked)
            shown = await pods[1].shown(operation)
            won = shown["outcome"]["result"]
            for each, answer in zip(said, answers, strict=True):
                assert answer.status == (200 if each["result"] == won else 409)
            taken = [answer.json for answer in answers if answer.status == 200]
            assert sorted("duplicate" in each for each in taken) == [False, True]
            assert len({each["completion_id"] for each in taken}) == 1
            assert sorted(each["disposition"] for each in shown["deliveries"]) == [
                "accepted",
                *["conflicting"] * 4,
                "duplicate",
            ]
            assert await pods[0].follow_ups(operation) == 1


async def test_pitfall_30_the_door_answers_while_a_follow_up_runs(service: Service) -> None:
    """It holds its session: what else comes for that is taken at once, and waits for it there."""
    house, key = service.house, await service.key("complete")
    turn = await running(house, "ann")
    first, second = [await begun(house, claim=turn) for _ in range(2)]
    answer = await service.complete(first.id, {"success": True}, key)
    await house.queue.end(turn, ended_with(turn, "It has begun."))
    await house.queue.close(turn)
    follow_up = await claimed(house, first.task_id)
    for operation, is_duplicate in ((first, True), (second, False)):
        answer = await service.complete(operation.id, {"success": True}, key)
        assert (answer.status, "duplicate" in answer.json) == (200, is_duplicate)
        assert answer.seconds < 2
    tasks = await house.tasks.of_session(EVERYONES, first.session_id, 100, 0)
    assert [task.status for task in tasks or ()] == ["succeeded", "running", "queued"]
    (held,) = await house.queue.renew([follow_up], 3600)
    assert held.epoch == follow_up.epoch  # a duplicate takes nothing from who works on it


async def test_pitfall_30_nothing_but_one_statement_runs_in_a_completion() -> None:
    async with opened(api_keys="on") as doors:
        headers = [bearer(await doors.key("complete"))]
        for said in (b'{"progress": 1}', b'{"success": true}', b'{"success": true}', b'{"success": false}'):
            doors.called.clear()
            await ask(doors.url, "POST", f"/operations/{doors.operation_id}/complete", said, headers)
            assert doors.called == ["report" if b"progress" in said else "complete"]


MANY = {
    "as many values as it may have": b'{"success":true,"result":[' + b",".join([b"[]"] * 24_990) + b"]}",
    "far more than it may have": b'{"success":true,"result":[' + b",".join([b"[]"] * 349_000) + b"]}",
    "many fields": b"{" + b",".join(b'"f%d":1' % n for n in range(70_000)) + b"}",
    "brackets": b"[" * 1024 * 1024,
    "a long text": b'{"success":true,"result":"' + b"x" * 1_048_000 + b'"}',
}


@pytest.mark.alone
@pytest.mark.parametrize("body", MANY.values(), ids=MANY)
async def test_no_completion_holds_everybody_up(service: Service, body: bytes) -> None:
    operation, key = await service.begin(), await service.key("complete")
    async with longest_stall() as stall:
        answer = await service.complete(operation.id, body, key)
    assert (answer.status == 200) == (body in (MANY["as many values as it may have"], MANY["a long text"]))
    assert max(stall) < LONGEST_STALL_SECONDS


async def test_pitfall_30_a_session_that_somebody_has_locked_bounds_the_answer(stores: StoreUrls, dsn: str) -> None:
    """It is not known then whether it was taken; a repeat is harmless."""
    settings = settings_for(stores.redis, dsn, api_keys="on")
    async with AsyncExitStack() as stack:
        service = await postgres_service(stack, settings)
        operation, key = await service.begin(), await service.key("complete")
        pool = await stack.enter_async_context(postgres_pool(service.house.urls.postgres, connections=2))
        hasty = PostgresOperations(Database(pool, call_seconds=0.3))
        app = await stack.enter_async_context(open_app(replace(service.house, inbox=hasty), settings))
        other = Service(await stack.enter_async_context(served(app, settings)), service.house)
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute("SELECT FROM sessions WHERE id = $1 FOR UPDATE", operation.session_id)
            answer = await other.complete(operation.id, {"success": True}, key)
            assert_problem(answer, 503, "service_unavailable")
            assert answer.headers["retry-after"] == "1"
            assert answer.seconds < 2
            shown = await service.shown(operation)  # nobody waits to look
            assert shown["status"] == "pending"
        async with asyncio.timeout(10):
            while (answer := await other.complete(operation.id, {"success": True}, key)).status == 503:
                pass  # until a connection is there again
        assert answer.status == 200
