"""The issuer's keys: which are used, when they are fetched, and what happens while they cannot be."""

import asyncio
import json
from pathlib import Path

import pytest
import structlog
from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

from service.access.jwks import FRESH_SECONDS, MAX_KEYS, REST_SECONDS, Jwks, keys_in
from service.adapters import jwks_document as documents
from service.adapters.jwks_document import MAX_DOCUMENT_BYTES, jwks_document
from service.model.errors import IssuerUnavailable
from tests.access.issuer import EC_KEY, ED_KEY, PUBLISHED, document, jwk


class Issuer:
    """Publishes a document, or is away; counts how often it is asked."""

    def __init__(self) -> None:
        self.published: bytes | None = document(jwk(EC_KEY, "ec"))
        self.asked = 0
        self.now = 1000.0
        self.answers = asyncio.Event()
        self.answers.set()

    async def load(self) -> bytes:
        self.asked += 1
        await self.answers.wait()
        if self.published is None:
            raise IssuerUnavailable
        return self.published

    def keys(self) -> Jwks:
        return Jwks(self.load, lambda: self.now)


# --- which keys -------------------------------------------------------------------------------------------------------


def test_each_key_has_one_algorithm_and_a_lone_one_needs_no_name() -> None:
    keys = keys_in(PUBLISHED)
    assert {name: key.algorithm_name for name, key in keys.items()} == {"ec": "ES256", "ed": "EdDSA"}
    assert set(keys_in(document(jwk(EC_KEY, "ec")))) == {"ec", None}
    assert set(keys_in(document(jwk(EC_KEY, None)))) == {None}
    named = RSAAlgorithm.to_jwk(rsa.generate_private_key(65537, 2048).public_key(), as_dict=True)
    assert keys_in(document(named | {"alg": "PS256"}))[None].algorithm_name == "PS256"


NOT_FOR_SIGNING_SO = [
    {"kty": "oct", "k": "c2VjcmV0", "kid": "x"},
    {"kty": "oct", "k": "c2VjcmV0", "kid": "x", "alg": "RS256"},
    jwk(EC_KEY, "x") | {"use": "enc"},
    jwk(EC_KEY, "x") | {"alg": "none"},
    jwk(EC_KEY, "x") | {"alg": "HS256"},
    jwk(EC_KEY, "x") | {"alg": ["ES256"]},
    jwk(EC_KEY, "x") | {"crv": "P-999"},
    jwk(EC_KEY, None) | {"kid": 7},
    jwk(EC_KEY, None) | {"kid": ["x"]},
    {"kty": "RSA"},
    {},
    "x",
    None,
]


@pytest.mark.parametrize("other", NOT_FOR_SIGNING_SO)
def test_what_is_not_for_signing_so_is_left_out(other: object) -> None:
    keys = json.dumps({"keys": [other, jwk(EC_KEY, "ec"), jwk(ED_KEY, "ed")]}).encode()
    assert set(keys_in(keys)) == {"ec", "ed"}
    with pytest.raises(ValueError, match="no key"):
        keys_in(json.dumps({"keys": [other]}).encode())


NO_DOCUMENT = [b"", b"[]", b"null", b"{}", b'{"keys":{}}', b'{"keys":[]}', b"<html>", b"[" * 5000, b"\xff"]


@pytest.mark.parametrize("raw", [*NO_DOCUMENT, document(*[jwk(EC_KEY, "ec")] * (MAX_KEYS + 1))])
def test_what_is_no_document_is_refused(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r".*"):
        keys_in(raw)


# --- when it is fetched -----------------------------------------------------------------------------------------------


async def test_the_document_is_fetched_once_for_all_who_come_at_once() -> None:
    issuer = Issuer()
    keys = issuer.keys()
    found = await asyncio.gather(*(keys.key("ec") for _ in range(20)))
    assert all(found)
    assert issuer.asked == 1


async def test_an_unknown_key_has_it_fetched_again_but_not_too_often() -> None:
    issuer = Issuer()
    keys = issuer.keys()
    assert await keys.key("ec")
    issuer.published = PUBLISHED
    assert await keys.key("ed") is None
    issuer.now += REST_SECONDS
    assert await keys.key("ed")
    for n in range(20):
        assert await keys.key(f"x{n}") is None
    assert issuer.asked == 2


async def test_a_key_that_the_issuer_took_back_is_known_for_five_minutes() -> None:
    issuer = Issuer()
    keys = issuer.keys()
    assert await keys.key("ec")
    issuer.published = document(jwk(ED_KEY, "ed"))
    issuer.now += FRESH_SECONDS - 1
    assert await keys.key("ec")
    issuer.now += 1
    assert await keys.key("ec") is None
    assert issuer.asked == 2


@pytest.mark.parametrize("away", [None, b"<html>not now</html>", document()])
async def test_while_the_issuer_is_away_what_is_known_goes_on_and_the_log_is_told_once(away: bytes | None) -> None:
    issuer = Issuer()
    keys = issuer.keys()
    assert await keys.key("ec")
    issuer.published = away
    with structlog.testing.capture_logs() as logs:
        for _ in range(3):
            issuer.now += FRESH_SECONDS
            assert await keys.key("ec")
            with pytest.raises(IssuerUnavailable):
                await keys.key("ed")
        assert issuer.asked == 4
        issuer.published = PUBLISHED
        issuer.now += REST_SECONDS
        assert await keys.key("ed")
    assert [line["event"] for line in logs] == ["issuer_keys_away", "issuer_keys_are_back"]


async def test_an_issuer_that_was_never_there_cannot_be_asked_and_is_not_stormed() -> None:
    issuer = Issuer()
    issuer.published = None
    keys = issuer.keys()
    for _ in range(5):
        with pytest.raises(IssuerUnavailable):
            await keys.key("ec")
    assert issuer.asked == 1


async def test_who_shows_a_known_key_does_not_wait_for_an_issuer_that_hangs() -> None:
    issuer = Issuer()
    keys = issuer.keys()
    assert await keys.key("ec")
    issuer.answers.clear()
    issuer.now += FRESH_SECONDS
    fetches = asyncio.create_task(keys.key("ec"))
    while issuer.asked < 2:  # noqa: ASYNC110
        await asyncio.sleep(0)
    assert await keys.key("ec")
    issuer.answers.set()
    assert await fetches


async def test_who_is_cancelled_while_fetching_leaves_it_to_the_next() -> None:
    issuer = Issuer()
    issuer.answers.clear()
    keys = issuer.keys()
    fetches = asyncio.create_task(keys.key("ec"))
    while issuer.asked < 1:  # noqa: ASYNC110
        await asyncio.sleep(0)
    fetches.cancel()
    with pytest.raises(asyncio.CancelledError):
        await fetches
    issuer.answers.set()
    assert await keys.key("ec")


# --- from where -------------------------------------------------------------------------------------------------------


async def test_from_a_file(tmp_path: Path) -> None:
    place = tmp_path / "keys.json"
    with pytest.raises(IssuerUnavailable):
        await jwks_document(str(place))()
    place.write_bytes(PUBLISHED)
    assert await jwks_document(str(place))() == PUBLISHED
    place.write_bytes(b" " * (MAX_DOCUMENT_BYTES + 1))
    with pytest.raises(IssuerUnavailable):
        await jwks_document(str(place))()


async def test_from_a_url_within_a_time_and_a_size_and_from_no_other_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "FETCH_SECONDS", 0.2)
    left = asyncio.Event()

    async def here(_: web.Request) -> web.Response:
        return web.Response(body=PUBLISHED)

    async def elsewhere(_: web.Request) -> web.Response:
        raise web.HTTPFound("/here")

    async def much(_: web.Request) -> web.Response:
        return web.Response(body=b" " * (MAX_DOCUMENT_BYTES + 1))

    async def never(_: web.Request) -> web.Response:
        await left.wait()
        return web.Response()

    app = web.Application()
    app.add_routes([web.get(f"/{one.__name__}", one) for one in (here, elsewhere, much, never)])
    async with TestServer(app) as server:
        assert await jwks_document(str(server.make_url("/here")))() == PUBLISHED
        for path in ("/elsewhere", "/much", "/never", "/nowhere"):
            with pytest.raises(IssuerUnavailable):
                await jwks_document(str(server.make_url(path)))()
        left.set()
        gone = str(server.make_url("/here"))
    with pytest.raises(IssuerUnavailable):
        await jwks_document(gone)()
