"""The doors keep their contract: whatever schemathesis makes of it is answered as it says."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import pytest_asyncio
import requests
import schemathesis
import schemathesis.specs.openapi.schemas  # here, and not where it is first used, which is in a thread
from hypothesis import HealthCheck, Phase, given, settings
from pydantic import TypeAdapter
from schemathesis.core.failures import FailureGroup
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import ignored_auth, negative_data_rejection, positive_data_acceptance

from service.http import answers
from service.http.auth import PUBLIC
from service.http.health import HealthRoutes
from service.http.openapi import refusals
from service.http.operations import OTHER_OPERATION
from service.http.problems import MEDIA_TYPE
from service.http.route import Contract, Route
from service.model.caller import EVERYONES
from service.model.errors import LogTailLost, NotAsked, NothingFailed
from service.model.events import TextPart
from service.model.ids import TaskId
from service.model.operation import OTHER_TASK
from service.model.session import NewMessage
from service.registry.archive import Archivist
from service.settings import Settings
from service.wiring import open_worker
from tests.http import memory
from tests.http.memory import Doors, bearer, opened
from tests.http.wire import Answer, Header, ask, send
from tests.test_documents import readme, sources

pytestmark = pytest.mark.asyncio(loop_scope="module")

ELSEWHERE = "https://app.example.com"
NO_STORE = "no-store, private"

EXAMPLES = 8
"""Of each operation, well made; and as many badly made."""

SECONDS = 20.0
FREE = {
    *("session_id", "task_id", "chat_id", "operation_id", "file", "folder", "name"),
    *("X-Request-Id", "If-None-Match"),
}
"""Parameters that may be anything: an operation without others, and without a body, cannot be asked for wrongly."""

TIED = (
    *("There is no such message", "idempotency_key_reused", '"error_type":"gap"'),
    *(NotAsked().args[0], NothingFailed().args[0], OTHER_OPERATION, OTHER_TASK, '"error_type":"conflicting"'),
)
"""What is well made is refused so where it names what there is not."""

LOOSE = "POST /api/chat"
"""Of what is posted here only the last message is looked at, and that has to fit what is there."""


@dataclass
class Living:
    """A service that works: turns are run, and the log of one task is archived."""

    doors: Doors
    key: str
    services_key: str
    contract: dict[str, Any]
    question_id: str
    """Of an operation that waits for a person's answer."""
    seen: set[tuple[str, int]] = field(default_factory=set)
    """How operations were answered."""

    async def ask(self, method: str, path: str, *headers: Header) -> Answer:
        return await ask(self.doors.url, method, path, None, [bearer(self.key), *headers])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def living() -> AsyncIterator[Living]:
    stop = asyncio.Event()
    async with (
        opened(has_logs=True, api_keys="on", cors_origins=ELSEWHERE) as doors,
        open_worker(doors.house, Settings(_env_file=None)) as worker,
        asyncio.TaskGroup() as tasks,
    ):
        tasks.create_task(worker.run(stop))
        contract = (await ask(doors.url, "GET", "/openapi.json")).json
        question = await doors.begin("ask", "person", None)
        living = Living(
            doors, await doors.key("read", "write", "ops"), await doors.key("ops", owner=None), contract, question.id
        )
        await living.ask("GET", f"/tasks/{doors.task_id}/stream")  # to its end
        doors.archive.know(TaskId(doors.task_id))
        await Archivist(doors.house.logs, doors.house.hot, doors.archive, hot_ttl_seconds=3600).archive_some()
        yield living
        stop.set()


def operations(living: Living) -> Iterator[schemathesis.APIOperation]:
    schema = schemathesis.openapi.from_dict(closed(living.contract))
    schema.config.generation.update(with_security_parameters=False)
    return (found.ok() for found in schema.get_all_operations())


def closed(contract: dict[str, Any]) -> dict[str, Any]:
    """The contract, in which no object has a field that is not named: what is answered beside it is found so."""
    copy: dict[str, Any] = json.loads(json.dumps(contract))
    for name, schema in copy["components"]["schemas"].items():
        if "properties" in schema and name != "Frame":  # which gets the fields that SSE sets by default
            schema.setdefault("additionalProperties", False)
    return copy


def ask_all(living: Living, mode: GenerationMode) -> dict[str, str]:
    """What was answered as the contract does not say, by operation. To be run in a thread: it waits."""
    failures: dict[str, str] = {}
    with requests.Session() as session:
        for operation in operations(living):
            key = living.services_key if operation.path.startswith("/dead-letters") else living.key
            session.headers["Authorization"] = f"Bearer {key}"
            has_form = operation.body or {each.name for each in operation.iter_parameters()} - FREE
            if has_form or mode is GenerationMode.POSITIVE:
                try:
                    ask_one(living, session, operation, mode, EXAMPLES if has_form else 2)
                except (FailureGroup, BaseExceptionGroup) as group:
                    failures[operation.label] = "\n".join(map(str, group.exceptions))
    return failures


def ask_one(
    living: Living, session: requests.Session, operation: schemathesis.APIOperation, mode: GenerationMode, examples: int
) -> None:
    doors, is_deleted = living.doors, operation.method == "delete"
    names = doors.names | {
        "session_id": doors.doomed_id if is_deleted else doors.session_id,
        "chat_id": "chat",
        "operation_id": living.question_id if operation.path.endswith("/approve") else doors.operation_id,
    }
    named = {each.name: names[each.name] for each in operation.path_parameters}

    @settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode, path_parameters=named))
    def keeps_it(case: schemathesis.Case) -> None:
        answer = case.call(doors.url, session=session, timeout=SECONDS)
        living.seen.add((operation.label, answer.status_code))
        is_loose = operation.label == LOOSE or any(why in answer.text for why in TIED)
        excluded = [ignored_auth, *([positive_data_acceptance, negative_data_rejection] if is_loose else [])]
        case.validate_response(answer, excluded_checks=excluded)

    keeps_it()


RARE = {
    ("GET /tasks/{task_id}/stream", 204),
    ("GET /tasks/{task_id}/export", 304),
    ("POST /tasks/{task_id}/cancel", 202),
    ("POST /operations/{operation_id}/complete", 202),
    ("GET /sessions/{session_id}/stream", 200),
    ("GET /api/chat/{chat_id}/stream", 200),
    ("GET /readyz", 503),
    ("HEAD /readyz", 503),
    ("GET /", 304),
    ("GET /console/{file}", 304),
    ("GET /console/{folder}/{name}", 304),
}
"""Good answers that take more than a request by itself; other tests of the doors have them."""


async def test_whatever_is_asked_well_is_answered_as_the_contract_says(living: Living) -> None:
    assert await asyncio.to_thread(ask_all, living, GenerationMode.POSITIVE) == {}
    promised = {
        (f"{method.upper()} {path}", int(status))
        for path, methods in living.contract["paths"].items()
        for method, operation in methods.items()
        for status, answer in operation["responses"].items()
        if "$ref" not in answer
    }
    assert promised - living.seen <= RARE


async def test_whatever_is_asked_badly_is_refused_as_the_contract_says(living: Living) -> None:
    assert await asyncio.to_thread(ask_all, living, GenerationMode.NEGATIVE) == {}


async def test_an_export_has_the_lines_that_the_contract_says(living: Living) -> None:
    export = (await living.ask("GET", f"/tasks/{living.doors.task_id}/export")).body
    line_of = TypeAdapter(answers.Line)
    lines = [line for line in dechunked(export).split(b"\n") if line]
    assert len(lines) > 5
    for line in lines:
        line_of.validate_json(line)


def dechunked(body: bytes) -> bytes:
    return b"".join(re.findall(rb"[0-9a-f]+\r\n(.*?)\r\n", body, re.DOTALL))


# --- what may be kept -------------------------------------------------------------------------------------------------

FROM_A_STREAM = "no-cache, no-transform"
KEPT = {
    "/sessions/{session_id}/stream": FROM_A_STREAM,
    "/tasks/{task_id}/stream": FROM_A_STREAM,
    "/api/chat": FROM_A_STREAM,
    "/api/chat/{chat_id}/stream": FROM_A_STREAM,
    "/tasks/{task_id}/export": "private, immutable",
}
"""All that is not `no-store, private`. The log is an archived one."""


BODIES = {
    "/sessions/{session_id}/messages": b'{"text": "Hi"}',
    "/operations/{operation_id}/complete": b'{"success": true}',
    "/operations/{operation_id}/approve": b'{"answer": null}',
    "/api/chat": json.dumps(
        {
            "id": "chat",
            "trigger": "submit-message",
            "messages": [{"id": "m", "role": "user", "parts": [{"type": "text", "text": "/wait 3600"}]}],
        }
    ).encode(),
}


async def test_of_no_answer_anything_may_be_kept_but_of_these(living: Living) -> None:
    doors, nobodys = living.doors, "01890000-0000-7000-8000-000000000000"
    long = NewMessage((TextPart("/wait 3600"),))
    running = await doors.messages.post(EVERYONES, doors.session_id, long)
    for route in doors.app.router.routes():
        assert route.resource is not None
        template = route.resource.canonical
        if template == "/" or template.startswith("/console/"):
            continue  # which are everybody's
        there = template.format_map(doors.names | {"chat_id": "chat"})
        foreign = template.format_map(dict.fromkeys(doors.names, nobodys))
        body = BODIES.get(template)
        until = b"retry" if template in KEPT else None
        asked: dict[tuple[str, str], dict[str, str]] = {
            (foreign, living.key): {},
            (there, living.key): KEPT,  # which of a path without ids is the same
            (there, "x"): {},
        }
        for (path, key), kept in asked.items():
            if (route.method, path, key) != ("DELETE", there, living.key):
                answer = await ask(doors.url, route.method, path, body, [bearer(key)], until=until)
                assert answer.headers["cache-control"] == kept.get(template, NO_STORE), template
    assert (await living.ask("POST", f"/tasks/{running.task_id}/cancel")).status == 202


async def test_what_was_kept_may_be_kept_on(living: Living) -> None:
    path = f"/tasks/{living.doors.task_id}/export"
    tag = (await living.ask("GET", path)).headers["etag"]
    again = await living.ask("GET", path, ("If-None-Match", tag))
    assert (again.status, again.headers["cache-control"]) == (304, "private, immutable")
    assert (await ask(living.doors.url, "GET", path, None, [("If-None-Match", tag)])).headers[
        "cache-control"
    ] == NO_STORE


async def test_nothing_may_be_kept_of_what_has_no_body_or_no_route(living: Living) -> None:
    session, task, page = f"/sessions/{living.doors.session_id}", f"/tasks/{living.doors.task_id}", ELSEWHERE
    last = (await living.ask("GET", f"{task}/events")).json["last"]
    preflight = [("Origin", page), ("Access-Control-Request-Method", "GET")]
    made = (await living.ask("POST", "/sessions")).json["id"]
    for method, path, status, headers in (
        ("PATCH", session, 204, []),
        ("DELETE", f"/sessions/{made}", 204, []),
        ("GET", f"{task}/stream", 204, [("Last-Event-ID", last)]),
        ("OPTIONS", "/sessions", 204, preflight),
        ("GET", "/nowhere", 404, []),
        ("PUT", "/sessions", 405, []),
        ("POST", "/sessions", 417, [("Expect", "a-miracle")]),
    ):
        answer = await living.ask(method, path, *headers)
        assert (answer.status, answer.headers["cache-control"]) == (status, NO_STORE), path
    malformed = await send(living.doors.url, b"hello\r\n\r\n")
    assert (malformed.status, malformed.headers["cache-control"]) == (400, NO_STORE)


# --- the document -----------------------------------------------------------------------------------------------------


async def test_every_route_is_in_the_contract_and_no_other(living: Living) -> None:
    described = {(method.upper(), path) for path, methods in living.contract["paths"].items() for method in methods}
    assert described == {
        (route.method, route.resource.canonical) for route in living.doors.app.router.routes() if route.resource
    }


async def test_no_route_can_be_without_a_contract() -> None:
    with pytest.raises(TypeError, match="contract"):
        Route("GET", "/new", HealthRoutes.alive, PUBLIC)  # type: ignore[call-arg, arg-type]


async def test_an_error_without_a_status_is_in_no_contract() -> None:
    contract = Contract("new", "New", (), raises=(LogTailLost,))
    with pytest.raises(ValueError, match="LogTailLost has no status"):
        refusals(Route("GET", "/new", HealthRoutes.alive, PUBLIC, contract))  # type: ignore[arg-type]


async def test_each_operation_has_a_name_of_its_own(living: Living) -> None:
    names = [each["operationId"] for methods in living.contract["paths"].values() for each in methods.values()]
    assert len(set(names)) == len(names) > 20


async def test_whatever_the_contract_refers_to_is_there(living: Living) -> None:
    places = set(re.findall(r'"\$ref": "#/components/([^"]+)"', json.dumps(living.contract)))
    components = living.contract["components"]
    assert {place for place in places if place.partition("/")[2] not in components[place.partition("/")[0]]} == set()
    unused = {f"schemas/{name}" for name in components["schemas"]} - places
    assert unused <= {"schemas/Frame"}


async def test_every_parameter_that_is_read_is_in_the_contract(living: Living) -> None:
    """By its name, at whatever route; that they do what it says is what is asked above."""
    read = set(re.findall(r'(?:choice|number|text)\(request, "(\w+)"', sources("service/http")))
    read |= set(re.findall(r'request\.(?:query|headers)\.getall\("([\w-]+)"', sources("service/http")))
    operations = [each for methods in living.contract["paths"].values() for each in methods.values()]
    told = {parameter.get("name") for each in operations for parameter in each["parameters"]}
    assert len(read) > 10
    assert read - told <= {"Authorization", "X-API-Key", "token", "Content-Encoding", "Origin"}


async def test_the_contract_says_who_may_ask(living: Living) -> None:
    paths = living.contract["paths"]
    assert paths["/healthz"]["get"]["security"] == paths["/openapi.json"]["get"]["security"] == []
    assert paths["/tasks/{task_id}/token"]["post"]["security"] == [{"bearer": ["read"]}, {"api_key": ["read"]}]
    complete = paths["/operations/{operation_id}/complete"]["post"]["security"]
    assert {"signature": []} in complete
    assert {"api_key": ["complete"]} in complete
    assert {"stream_token": []} in paths["/tasks/{task_id}/stream"]["get"]["security"]
    unguarded = {path for path, methods in paths.items() for each in methods.values() if not each["security"]}
    assert {path.format_map(living.doors.names) for path in unguarded} == memory.PUBLIC


async def test_every_error_type_has_the_status_in_the_contract_that_the_readme_says(living: Living) -> None:
    told = {
        (int(status), error_type)
        for types, statuses in re.findall(r"^\| (`[^|]*) \| ([0-9, ]+) \|", readme("When a request is refused"), re.M)
        for error_type in re.findall(r"`(\w+)`", types)
        for status in statuses.split(", ")
    }
    promised = {
        (content["schema"]["allOf"][1]["properties"]["status"]["const"], error_type)
        for answer in living.contract["components"]["responses"].values()
        for media_type, content in answer.get("content", {}).items()
        if media_type == MEDIA_TYPE
        for error_type in content["schema"]["allOf"][1]["properties"]["error_type"]["enum"]
    }
    assert promised <= told
    no_route_has = {(405, "method_not_allowed"), (409, "session_busy"), (409, "message_exists")}
    assert told - promised <= no_route_has


async def test_the_contract_is_the_same_for_everybody_and_kept_by_nobody(living: Living) -> None:
    answer = await ask(living.doors.url, "GET", "/openapi.json")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert answer.headers["cache-control"] == "no-store, private"
    assert answer.json["openapi"] == "3.1.0"
    assert (await living.ask("GET", "/openapi.json")).json == answer.json
