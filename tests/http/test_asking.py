"""Who is asking, at every route."""

import asyncio
import io
import json
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest
import pytest_asyncio
import structlog
from aiohttp import web

from service.adapters.memory_keys import MemoryKeys
from service.cli.logs import rendering
from service.model.caller import Scope
from service.model.errors import DatabaseUnavailable
from service.settings import Settings
from service.wiring import open_app
from tests.access.issuer import AUDIENCE, ISSUER, PUBLISHED, SECRET, Signer, claims
from tests.http.conftest import served
from tests.http.memory import PUBLIC, Doors, bearer, opened
from tests.http.wire import Answer, Header, ask

pytestmark = pytest.mark.asyncio(loop_scope="module")

ELSEWHERE = "https://app.example.com"
SIGNERS = {"secret": Signer(shares_secret=True), "published keys": Signer(shares_secret=False)}
TOKENS = {"jwt_issuer": ISSUER, "jwt_audience": AUDIENCE}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def services(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[dict[str, Doors]]:
    """One a way in, by its name."""
    place = tmp_path_factory.mktemp("issuer") / "jwks.json"
    place.write_bytes(PUBLISHED)
    ways: dict[str, dict[str, str]] = {
        "secret": {"jwt_secret": SECRET, **TOKENS},
        "published keys": {"jwt_jwks": str(place), **TOKENS},
        "keys": {"api_keys": "on", "cors_origins": ELSEWHERE},
        "local": {"cors_origins": ELSEWHERE},
    }
    async with AsyncExitStack() as stack:
        yield {name: await stack.enter_async_context(opened(**settings)) for name, settings in ways.items()}


@pytest.fixture
def by_secret(services: dict[str, Doors]) -> Doors:
    return services["secret"]


@pytest.fixture
def by_published_keys(services: dict[str, Doors]) -> Doors:
    return services["published keys"]


@pytest.fixture
def by_keys(services: dict[str, Doors]) -> Doors:
    return services["keys"]


@pytest.fixture
def local(services: dict[str, Doors]) -> Doors:
    return services["local"]


@pytest.fixture(params=["secret", "published keys", "keys", "local"])
def doors(request: pytest.FixtureRequest, services: dict[str, Doors]) -> Doors:
    return services[request.param]


def chat(chat_id: str) -> bytes:
    """What is posted to a chat."""
    message = {"id": "m", "role": "user", "parts": [{"type": "text", "text": "Hi"}]}
    return json.dumps({"id": chat_id, "trigger": "submit-message", "messages": [message]}).encode()


def until(path: str) -> bytes | None:
    """Where to stop reading what never ends."""
    return b"\r\n\r\n" if path.endswith("/stream") else None


def assert_refused(answer: Answer, status: int, error_type: str, doors: Doors) -> None:
    assert answer.status == status
    if doors.asked.startswith("/api/chat"):
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    else:
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json["error_type"] == error_type
    assert answer.headers["cache-control"] == "no-store, private"
    assert answer.headers.get("www-authenticate") == ("Bearer" if status == 401 else None)
    assert doors.called == []


async def assert_unauthenticated(doors: Doors, *headers: Header, query: str = "") -> None:
    """At every route that asks who is asking: the same answer, and not one call inward."""
    bodies = set()
    for method, path in doors.guarded:
        doors.called.clear()
        answer = await doors.ask(method, path + query, headers)
        assert_refused(answer, 401, "unauthenticated", doors)
        bodies.add(answer.body if path.startswith("/api/chat") else answer.json["detail"].encode())
    assert len(bodies) == 1


# --- the matrix -------------------------------------------------------------------------------------------------------


async def test_these_routes_are_public_and_no_others(by_keys: Doors) -> None:
    assert len(by_keys.guarded) >= 7
    for method, path in by_keys.all_routes:
        if path in PUBLIC:
            assert (await by_keys.ask(method, path, [bearer("garbage")])).status == 200


@pytest.mark.parametrize("kind", SIGNERS)
async def test_a_good_token_gets_through_everywhere(services: dict[str, Doors], kind: str) -> None:
    doors = services[kind]
    for method, path in doors.guarded:
        if path == "/metrics" or path.startswith(SERVICES_ALONE) or path.endswith("/complete"):
            continue  # which are the operators', and the services'
        doors.called.clear()
        answer = await doors.ask(method, path, [bearer(SIGNERS[kind].sign(claims()))], until=until(path))
        assert answer.status not in {401, 403}, answer.body
        assert doors.called, path


async def test_who_shows_nothing_gets_nowhere(by_keys: Doors, by_secret: Doors, by_published_keys: Doors) -> None:
    for doors in (by_keys, by_secret, by_published_keys):
        await assert_unauthenticated(doors)
        await assert_unauthenticated(doors, ("Cookie", "session=1"), ("X-Forwarded-User", "ann"))


GARBAGE: dict[str, list[Header]] = {
    "garbage": [bearer("garbage")],
    "nothing borne": [("Authorization", "Bearer")],
    "empty": [("Authorization", "")],
    "empty key": [("X-API-Key", "")],
    "another scheme": [("Authorization", "Basic YW5uOmFubg==")],
    "no scheme": [("Authorization", "garbage")],
    "a key of nobody": [("X-API-Key", f"ph_0123456789ab_{'x' * 43}")],
    "the same borne": [bearer(f"ph_0123456789ab_{'x' * 43}")],
    "bytes": [("Authorization", b"Bearer \xff\xfe\xfd")],
    "bytes for a key": [("X-API-Key", b"ph_\xff")],
    "a long key": [("X-API-Key", "ph_" + "a" * 7000)],
    "SQL": [("X-API-Key", "' OR 1=1 --")],
}


@pytest.mark.parametrize("headers", GARBAGE.values(), ids=GARBAGE)
async def test_garbage_gets_nowhere_not_even_to_the_local_owner(doors: Doors, headers: list[Header]) -> None:
    await assert_unauthenticated(doors, *headers)


BAD_TOKENS = [
    (kind, what)
    for kind, signer in SIGNERS.items()
    for what in signer.refused()
    if what != "too long"  # for a header, too
]


@pytest.mark.parametrize(("kind", "what"), BAD_TOKENS, ids=[f"{kind}: {what}" for kind, what in BAD_TOKENS])
async def test_pitfall_60_a_token_that_is_not_whole_gets_nowhere(
    services: dict[str, Doors], kind: str, what: str
) -> None:
    """Expired, without an expiry, for another audience, of another issuer, unsigned, signed with what is public …"""
    doors = services[kind]
    await assert_unauthenticated(doors, bearer(SIGNERS[kind].refused()[what]))


async def test_a_token_is_refused_where_there_is_no_issuer(by_keys: Doors, local: Doors) -> None:
    for doors in (by_keys, local):
        await assert_unauthenticated(doors, bearer(SIGNERS["secret"].sign(claims())))


async def test_pitfall_40_a_key_that_is_revoked_or_expired_or_not_quite_it_gets_nowhere(doors: Doors) -> None:
    good, revoked = await doors.key("read", "write"), await doors.key("read", "write")
    await doors.keys.revoke((await doors.keys.list(1))[0].id)
    expired = await doors.key("read", "write", lifetime_seconds=-1)
    for text in (revoked, expired, good[:-1], good + "A", good.upper(), good[:16] + revoked[16:]):
        for header in (bearer(text), ("X-API-Key", text)):
            await assert_unauthenticated(doors, header)


async def test_two_credentials_are_none(doors: Doors) -> None:
    good, token = await doors.key("read", "write"), await doors.stream_token(doors.task_id)
    key: Header = ("X-API-Key", good)
    for headers in ([bearer(good), key], [bearer(good), bearer(good)], [key, key], [key, ("X-API-Key", "")]):
        await assert_unauthenticated(doors, *headers)
    await assert_unauthenticated(doors, key, query=f"?token={token}")
    await assert_unauthenticated(doors, query=f"?token={token}&token={token}")


GOOD: dict[tuple[str, str], set[str]] = {
    ("POST", "/sessions"): {"write"},
    ("GET", "/sessions"): {"read", "ops"},
    ("GET", "/sessions/{session_id}"): {"read", "ops"},
    ("PATCH", "/sessions/{session_id}"): {"write"},
    ("DELETE", "/sessions/{session_id}"): {"write"},
    ("GET", "/sessions/{session_id}/stream"): {"read", "ops"},
    ("GET", "/sessions/{session_id}/tasks"): {"read", "ops"},
    ("GET", "/tasks"): {"read", "ops"},
    ("GET", "/tasks/{task_id}/events"): {"read", "ops"},
    ("GET", "/tasks/{task_id}/verify"): {"read", "ops"},
    ("GET", "/tasks/{task_id}/export"): {"read", "ops"},
    ("POST", "/sessions/{session_id}/messages"): {"write"},
    ("GET", "/tasks/{task_id}"): {"read", "ops"},
    ("POST", "/tasks/{task_id}/cancel"): {"write", "ops"},
    ("GET", "/tasks/{task_id}/stream"): {"read", "ops"},
    ("POST", "/tasks/{task_id}/token"): {"read"},
    ("POST", "/api/chat"): {"write"},
    ("GET", "/api/chat/{chat_id}/stream"): {"read"},
    ("POST", "/api/chat/{chat_id}/stop"): {"write"},
    ("GET", "/metrics"): {"ops"},
    ("GET", "/operations"): {"read", "ops"},
    ("GET", "/operations/{operation_id}"): {"read", "ops"},
    ("POST", "/operations/{operation_id}/complete"): {"complete", "ops"},
    ("POST", "/operations/{operation_id}/cancel"): {"write", "ops"},
    ("POST", "/operations/{operation_id}/approve"): {"write"},
    ("POST", "/operations/{operation_id}/redrive"): {"write", "ops"},
    ("GET", "/dead-letters"): {"ops"},
    ("POST", "/dead-letters/redrive"): {"ops"},
}
SERVICES_ALONE = "/dead-letters"
"""What is there has no owner: a key of the service's is needed, whatever an owner's may do."""


@pytest.mark.parametrize("scope", ["read", "write", "ops", "complete"])
async def test_a_key_does_what_its_scope_says_and_else_is_forbidden(doors: Doors, scope: Scope) -> None:
    own, services_own = [bearer(await doors.key(scope))], [bearer(await doors.key(scope, owner=None))]
    names = doors.names
    doomed = names | {"session_id": doors.doomed_id}
    taken = {
        (method, path.format_map(doomed if method == "DELETE" else names)): scopes
        for (method, path), scopes in GOOD.items()
    }
    assert set(taken) == set(doors.guarded)
    for (method, path), scopes in taken.items():
        is_services = path.startswith(SERVICES_ALONE)
        if is_services:
            doors.called.clear()
            assert_refused(await doors.ask(method, path, own), 403, "forbidden", doors)
        doors.called.clear()
        answer = await doors.ask(method, path, services_own if is_services else own, until=until(path))
        if scope in scopes:
            assert answer.status not in {401, 403}
        else:
            assert_refused(answer, 403, "forbidden", doors)


NOBODYS = dict.fromkeys(("session_id", "task_id", "chat_id", "operation_id"), "01890000-0000-7000-8000-000000000000")
STRANGERS: dict[str, tuple[str | None, list[Scope]]] = {
    "another owner's key": ("bob", ["read", "write", "complete"]),
    "another owner's key with ops": ("bob", ["read", "write", "ops", "complete"]),
    "pitfall 51: a key of the service's": (None, ["read", "write"]),
}


@pytest.mark.parametrize(("owner", "scopes"), STRANGERS.values(), ids=STRANGERS)
async def test_pitfall_52_what_is_foreign_is_answered_as_what_does_not_exist(
    by_keys: Doors, owner: str | None, scopes: list[Scope]
) -> None:
    """The same status, the same body, and the same calls inward."""
    headers = [bearer(await by_keys.key(*scopes, owner=owner))]
    for (method, template), taken in GOOD.items():
        if "{" not in template or taken.isdisjoint(scopes):
            continue
        answers = []
        for names in (by_keys.names, NOBODYS):
            by_keys.called.clear()
            answer = await by_keys.ask(method, template.format_map(names), headers)
            answers.append((answer.status, answer.body, answer.headers.get("retry-after"), list(by_keys.called)))
        assert answers[0] == answers[1]
        assert answers[0][0] == (204 if template.startswith("/api/chat") else 404), template


async def test_pitfall_52_a_chat_is_called_the_same_by_two_and_is_two() -> None:
    """Whoever posts to the name of a foreign chat, or to a foreign session, has one of their own."""
    async with opened(api_keys="on") as doors:
        ann, bob = [[bearer(await doors.key("read", "write", owner=owner))] for owner in ("ann", "bob")]
        for chat_id in ("c", doors.session_id):
            for headers in (ann, bob):
                await ask(doors.url, "POST", "/api/chat", chat(chat_id), headers, until=b"\r\n\r\n")
        theirs = [session["id"] for session in (await doors.ask("GET", "/sessions", bob)).json["sessions"]]
        assert len(theirs) == 2
        assert doors.session_id not in theirs
        (waiting,) = (await doors.ask("GET", f"/sessions/{doors.session_id}", ann)).json["pending"]
        assert waiting["id"] == "m"


async def test_nobody_lists_what_is_foreign(by_keys: Doors) -> None:
    for owner, scopes in STRANGERS.values():
        headers = [bearer(await by_keys.key(*scopes, owner=owner))]
        assert (await by_keys.ask("GET", "/sessions", headers)).json["sessions"] == []
        for query in ("", "?owner=ann", f"?session={by_keys.session_id}", "?status=queued"):
            assert (await by_keys.ask("GET", f"/tasks{query}", headers)).json["tasks"] == []
        for query in ("", "?tool=render", "?status=pending", "?executor=remote&stuck=1"):
            assert (await by_keys.ask("GET", f"/operations{query}", headers)).json["operations"] == []
    ann, ops = [bearer(await by_keys.key("read"))], [bearer(await by_keys.key("ops", owner=None))]
    for headers in (ann, ops):
        listed = await by_keys.ask("GET", f"/tasks?owner=ann&session={by_keys.session_id}", headers)
        assert [task["id"] for task in listed.json["tasks"]] == [by_keys.task_id]
        listed = await by_keys.ask("GET", "/operations?tool=render", headers)
        assert [operation["id"] for operation in listed.json["operations"]] == [by_keys.operation_id]


async def test_a_session_of_nobodys_gets_its_owner_once(by_keys: Doors) -> None:
    service, ann = [bearer(await by_keys.key("read", "write", owner=None))], [bearer(await by_keys.key("read"))]
    made = (await by_keys.ask("POST", "/sessions", service)).json
    path = f"/sessions/{made['id']}"
    assert made["owner"] is None
    assert (await by_keys.ask("GET", path, ann)).status == 404
    given = await ask(by_keys.url, "PATCH", path, b'{"owner": "ann", "title": "Yours"}', service)
    assert given.status == 204
    assert (await by_keys.ask("GET", path, service)).status == 404
    assert (await by_keys.ask("GET", path, ann)).json["title"] == "Yours"
    headers = [bearer(await by_keys.key("write"))]
    again = await ask(by_keys.url, "PATCH", path, b'{"owner": "ann"}', headers)
    assert (again.status, again.json["error_type"]) == (409, "session_owned")


async def test_pitfall_52_forbidden_does_not_say_whether_there_is_such_a_thing(by_keys: Doors) -> None:
    key = await by_keys.key("complete")
    nobodys = "01890000-0000-7000-8000-000000000000"
    for there, path in ((by_keys.task_id, "/tasks/{}"), (by_keys.session_id, "/sessions/{}")):
        answers = [await by_keys.ask("GET", path.format(one), [bearer(key)]) for one in (there, nobodys, "x", "%00")]
        assert [answer.status for answer in answers] == [403] * 4
        assert len({answer.body for answer in answers}) == 1


# --- stream tokens ----------------------------------------------------------------------------------------------------


async def test_a_stream_token_opens_its_stream(by_secret: Doors) -> None:
    headers = [bearer(SIGNERS["secret"].sign(claims()))]
    made = await by_secret.ask("POST", f"/tasks/{by_secret.task_id}/token", headers)
    assert (made.status, set(made.json)) == (201, {"token", "expires_at", "stream"})
    assert made.headers["cache-control"] == "no-store, private"
    left = datetime.fromisoformat(made.json["expires_at"]) - datetime.now(UTC)
    assert timedelta(seconds=290) < left <= timedelta(seconds=300)
    assert made.json["stream"] == f"/tasks/{by_secret.task_id}/stream?token={made.json['token']}"
    by_secret.called.clear()
    answer = await by_secret.ask("GET", made.json["stream"])
    assert answer.status not in {401, 403}
    assert by_secret.called


async def test_pitfall_52_a_stream_token_is_for_one_task(doors: Doors) -> None:
    other = await doors.stream_token("01890000-0000-7000-8000-000000000000")
    for text in (other, await doors.stream_token(doors.task_id.upper()), await doors.stream_token("")):
        doors.called.clear()
        answer = await doors.ask("GET", f"/tasks/{doors.task_id}/stream?token={text}")
        assert_refused(answer, 403, "forbidden", doors)


async def test_a_stream_token_is_good_for_the_stream_alone_and_in_the_query_alone(doors: Doors) -> None:
    token = await doors.stream_token(doors.task_id)
    for method, path in doors.guarded:
        if not path.endswith("/stream"):
            doors.called.clear()
            assert_refused(await doors.ask(method, f"{path}?token={token}"), 401, "unauthenticated", doors)
    await assert_unauthenticated(doors, bearer(token))
    await assert_unauthenticated(doors, ("X-API-Key", token))


async def test_a_query_takes_nothing_but_stream_tokens_that_are_good(doors: Doors) -> None:
    stream = f"/tasks/{doors.task_id}/stream"
    expired = await doors.stream_token(doors.task_id, -3600)
    foreign = await Doors(MemoryKeys()).stream_token(doors.task_id)
    signed = [signer.sign(claims(task=doors.task_id)) for signer in SIGNERS.values()]
    for text in (expired, foreign, *signed, await doors.key("read"), "", "x", "%00", "%FF", quote("' OR 1=1")):
        doors.called.clear()
        assert_refused(await doors.ask("GET", f"{stream}?token={text}"), 401, "unauthenticated", doors)


async def test_a_local_stream_token_is_no_good_where_everybody_is_asked(local: Doors) -> None:
    made = await local.ask("POST", f"/tasks/{local.task_id}/token")
    assert made.status == 201
    assert (await local.ask("GET", made.json["stream"])).status not in {401, 403}
    async with opened(api_keys="on") as asks:
        asks.lookups._port = asks.keys
        asks.keys._token_key = await local.keys.token_key()
        asks.task_id = local.task_id
        asks.called.clear()
        assert_refused(await asks.ask("GET", made.json["stream"]), 401, "unauthenticated", asks)


async def test_there_is_no_token_for_a_task_that_there_is_not(local: Doors) -> None:
    for name in ("01890000-0000-7000-8000-000000000000", "x"):
        assert (await local.ask("POST", f"/tasks/{name}/token")).status == 404
    answer = await ask(local.url, "POST", f"/tasks/{local.task_id}/token", b'{"seconds": 9}')
    assert answer.status == 422


# --- who shows nothing, and where nobody can judge --------------------------------------------------------------------


async def test_pitfall_51_who_shows_nothing_is_the_local_owner_only_where_nothing_is_set(
    local: Doors, by_keys: Doors
) -> None:
    for method, path in local.guarded:
        assert (await local.ask(method, path, until=until(path))).status not in {401, 403}
    await assert_unauthenticated(by_keys)


async def test_where_everybody_is_asked_the_name_it_is_asked_under_does_not_matter(by_keys: Doors) -> None:
    headers: list[Header] = [("Host", "playhead.example.com"), ("Origin", "https://elsewhere.example.com")]
    assert (await by_keys.ask("GET", "/healthz", headers)).status == 200
    assert (
        await by_keys.ask("GET", f"/tasks/{by_keys.task_id}", [*headers, bearer(await by_keys.key("read"))])
    ).status == 200


async def test_without_the_database_a_key_is_not_judged(by_keys: Doors) -> None:
    key = await by_keys.key("read", "write")
    by_keys.lookups.error = DatabaseUnavailable()
    try:
        for method, path in by_keys.guarded:
            by_keys.called.clear()
            answer = await by_keys.ask(method, path, [bearer(key)])
            assert_refused(answer, 503, "service_unavailable", by_keys)
            assert answer.headers["retry-after"] == "1"
    finally:
        by_keys.lookups.error = None


async def test_an_issuer_that_is_away_is_503() -> None:
    async with opened(jwt_jwks="http://127.0.0.1:1/jwks.json", **TOKENS) as doors:
        for method, path in doors.guarded:
            answer = await doors.ask(method, path, [bearer(SIGNERS["published keys"].sign(claims()))])
            assert_refused(answer, 503, "service_unavailable", doors)


# --- other pages ------------------------------------------------------------------------------------------------------

PREFLIGHT: list[Header] = [
    ("Access-Control-Request-Method", "POST"),
    ("Access-Control-Request-Headers", "authorization, content-type"),
]


@pytest.mark.parametrize("name", ["keys", "local"])
async def test_a_page_of_a_set_origin_may_ask_and_read(services: dict[str, Doors], name: str) -> None:
    doors = services[name]
    origin: Header = ("Origin", ELSEWHERE)
    for _, path in doors.all_routes:
        doors.called.clear()
        asked = await doors.ask("OPTIONS", path, [origin, *PREFLIGHT])
        assert (asked.status, asked.body, doors.called) == (204, b"", [])
        assert asked.headers["access-control-allow-origin"] == ELSEWHERE
        assert asked.headers["access-control-allow-methods"] == "DELETE, GET, HEAD, PATCH, POST"
        allowed = asked.headers["access-control-allow-headers"].split(", ")
        assert {"Authorization", "X-API-Key", "Content-Type", "Last-Event-ID", "Idempotency-Key"} < set(allowed)
        assert asked.headers["access-control-max-age"] == "600"
        assert "access-control-allow-credentials" not in asked.headers
    key = await doors.key("read", "write")
    for path, status in ((f"/tasks/{doors.task_id}", 200), ("/tasks/x", 404), ("/nowhere", 404)):
        answer = await doors.ask("GET", path, [origin, bearer(key)])
        assert answer.status == status
        assert (answer.headers["access-control-allow-origin"], answer.headers["vary"]) == (ELSEWHERE, "Origin")
        assert "X-Request-Id" in answer.headers["access-control-expose-headers"]
    refused = await doors.ask("GET", f"/tasks/{doors.task_id}", [origin, bearer("garbage")])
    assert (refused.status, refused.headers["access-control-allow-origin"]) == (401, ELSEWHERE)


FOREIGN = [
    *(
        "https://evil.test",
        "null",
        "",
        f"{ELSEWHERE}.evil.test",
        f"{ELSEWHERE}:444",
        f"{ELSEWHERE}/",
        ELSEWHERE.upper(),
    ),
    *("http://app.example.com", "https://example.com", "*", f"{ELSEWHERE}, https://evil.test"),
]


@pytest.mark.parametrize("origin", FOREIGN)
async def test_a_page_of_another_origin_is_told_nothing(by_keys: Doors, local: Doors, origin: str) -> None:
    for doors, status in ((by_keys, 405), (local, 403)):
        asked = await doors.ask("OPTIONS", "/sessions", [("Origin", origin), *PREFLIGHT])
        read = await doors.ask("GET", "/healthz", [("Origin", origin)])
        assert (asked.status, read.headers["vary"]) == (status, "Origin")
        for answer in (asked, read):
            assert not [name for name in answer.headers if name.startswith("access-control")]


async def test_without_origins_nothing_is_said_of_them(by_secret: Doors) -> None:
    asked = await by_secret.ask("OPTIONS", "/sessions", [("Origin", ELSEWHERE), *PREFLIGHT])
    assert asked.status == 405
    read = await by_secret.ask("GET", "/healthz", [("Origin", ELSEWHERE)])
    assert not [name for name in (*asked.headers, *read.headers) if name.startswith("access-control") or name == "vary"]


# --- what a request is called, and what the log is told ---------------------------------------------------------------

NO_ID = ["", " ", "a b", "x" * 129, "a,b", "a/b", "{}", "%0d%0aSet-Cookie:x", b"\xc3\xa9", b"\xff", b"a\tb", "../x"]


@pytest.mark.parametrize("path", ["/healthz", "/tasks/{task_id}", "/nowhere", "/tasks/{task_id}/stream"])
async def test_an_answer_has_the_id_that_its_request_brought_or_a_new_one(doors: Doors, path: str) -> None:
    path = path.format(task_id=doors.task_id)
    for given in ("a", "x" * 128, "0123-ABC_def.9"):
        answer = await doors.ask("GET", path, [("X-Request-Id", given)], until=b"\r\n\r\n")
        assert answer.headers["x-request-id"] == given
    fresh = [(await doors.ask("GET", path, until=b"\r\n\r\n")).headers["x-request-id"] for _ in range(2)]
    assert len(set(fresh)) == 2


@pytest.mark.parametrize("given", NO_ID, ids=str)
async def test_pitfall_58_what_is_no_id_never_stands_in_an_answer(local: Doors, given: str | bytes) -> None:
    answer = await local.ask("GET", "/healthz", [("X-Request-Id", given)])
    assert answer.status == 200
    assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["x-request-id"])
    twice = await local.ask("GET", "/healthz", [("X-Request-Id", "a"), ("X-Request-Id", "b")])
    assert len(twice.headers["x-request-id"]) == 32


async def test_what_is_refused_before_any_route_has_an_id_too(local: Doors) -> None:
    answer = await local.ask("GET", "/healthz", [("Expect", "a-miracle"), ("X-Request-Id", "mine")])
    assert (answer.status, answer.headers["x-request-id"]) == (417, "mine")
    answer = await local.ask("BREW", "/healthz")
    assert (answer.status, len(answer.headers["x-request-id"])) == (400, 32)


@asynccontextmanager
async def log_lines() -> AsyncIterator[list[dict[str, Any]]]:
    """What the log says while the block runs, as the command writes it; there when it is over."""
    written, lines = io.StringIO(), list[dict[str, Any]]()
    *steps, last = rendering(for_people=False)

    def write(logger: Any, name: str, event: Any) -> Any:
        written.write(str(last(logger, name, event)) + "\n")
        raise structlog.DropEvent

    with structlog.testing.capture_logs(processors=[*steps, write]):
        yield lines
    lines += map(json.loads, written.getvalue().splitlines())


async def test_no_log_line_has_a_credential_or_a_query_and_all_have_the_request_s_id(by_keys: Doors) -> None:
    good, token = await by_keys.key("read", "write"), await by_keys.stream_token(by_keys.task_id)
    async with log_lines() as lines:
        by_keys.stores[3].error = RuntimeError("hush")
        by_keys.stores[0].error = RuntimeError("hush")
        name: Header = ("X-Request-Id", "mine")
        try:
            for path in (f"/tasks/{by_keys.task_id}", f"/tasks/{by_keys.task_id}/stream"):
                await by_keys.ask("GET", f"{path}?hush=1", [name, bearer(good)])
                await by_keys.ask("GET", f"{path}?token={token}&hush=1", [name])
                await by_keys.ask("GET", f"{path}?token=hush.hush.hush", [name])
                await by_keys.ask("GET", path, [name, bearer("hush.hush.hush")])
        finally:
            by_keys.stores[3].error = by_keys.stores[0].error = None
    assert {line["action"] for line in lines} == {"unauthenticated", "request_crashed"}
    assert {line["request_id"] for line in lines} == {"mine"}
    text = json.dumps(lines)
    for secret in ("hush", token, token.rpartition(".")[2], good, good[16:], "?token"):
        assert secret not in text


async def test_a_refusal_is_logged_by_its_reason_and_route(by_secret: Doors) -> None:
    expired = SIGNERS["secret"].sign(claims(exp=1, iat=0))
    with structlog.testing.capture_logs() as logs:
        await by_secret.ask("GET", f"/tasks/{by_secret.task_id}", [bearer(expired)])
        await by_secret.ask("GET", f"/tasks/{by_secret.task_id}")
    assert logs == [
        {"event": "unauthenticated", "reason": reason, "route": "/tasks/{task_id}", "log_level": "info"}
        for reason in ("expired_token", "nothing_shown")
    ]


async def test_an_ops_key_of_the_service_is_noted_where_it_reaches_everybody_s(by_keys: Doors) -> None:
    everybodys = await by_keys.key("read", "write", "ops", owner=None)
    key_id = everybodys[3:15]
    others = [await by_keys.key("read", "write", "ops"), await by_keys.key("read", "write", owner=None)]
    with structlog.testing.capture_logs() as logs:
        for key in others:
            await by_keys.ask("GET", f"/tasks/{by_keys.task_id}", [bearer(key)])
        assert logs == []
        await by_keys.ask("GET", f"/tasks/{by_keys.task_id}?x=1", [bearer(everybodys)])
        await by_keys.ask("GET", "/sessions/%0Ax", [bearer(everybodys)])
        await by_keys.ask("POST", "/sessions", [bearer(everybodys)])
    crossed = {"event": "owners_crossed", "by": f"key {key_id}", "log_level": "info"}
    assert logs == [
        crossed | {"route": "/tasks/{task_id}", "asked_for": {"task_id": by_keys.task_id}},
        crossed | {"route": "/sessions/{session_id}", "asked_for": {"session_id": "no id"}},
    ]


async def test_a_key_of_the_service_completes_anybody_s_and_is_noted(by_keys: Doors) -> None:
    """With `complete`, or with `ops`; only here does `complete` reach across owners."""
    keys = [await by_keys.key("complete", "read", owner=None), await by_keys.key("ops", owner=None)]
    path = f"/operations/{(await by_keys.begin()).id}/complete"
    with structlog.testing.capture_logs() as logs:
        answers = [await by_keys.ask("POST", path, [bearer(key)]) for key in keys]
    assert [answer.status for answer in answers] == [200, 200]
    assert [line["by"] for line in logs if line["event"] == "owners_crossed"] == [f"key {key[3:15]}" for key in keys]
    assert (await by_keys.ask("GET", path.removesuffix("/complete"), [bearer(keys[0])])).status == 404


async def test_a_route_that_declares_nothing_lets_nobody_through(by_keys: Doors) -> None:
    """One that is added beside the table."""
    reached = asyncio.Event()

    async def undeclared(_: web.Request) -> web.Response:
        reached.set()
        return web.Response()

    settings = Settings(_env_file=None)
    async with open_app(by_keys.house, settings) as app:
        app.router.add_get("/undeclared", undeclared)
        async with served(app, settings) as url:
            assert (await ask(url, "GET", "/undeclared")).status == 500
    assert not reached.is_set()
