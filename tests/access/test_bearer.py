"""Whose a bearer token is; and the many that are nobody's."""

import time

import pytest

from service.access.bearer import BearerTokens
from service.access.jwks import Jwks
from service.model.caller import Caller
from service.model.errors import Unauthenticated
from tests.access.issuer import AUDIENCE, ED_KEY, ISSUER, PUBLISHED, SECRET, Signer, claims, jwt

SIGNERS = {"secret": Signer(shares_secret=True), "published keys": Signer(shares_secret=False)}
REFUSED = [(kind, what) for kind, signer in SIGNERS.items() for what in signer.refused()]


async def published() -> bytes:
    return PUBLISHED


def tokens(kind: str) -> BearerTokens:
    keys = SECRET.encode() if kind == "secret" else Jwks(published, time.monotonic)
    return BearerTokens(keys, issuer=ISSUER, audience=AUDIENCE)


@pytest.fixture(params=SIGNERS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("subject", ["ann", "x" * 255, "auth0|5f7c8ec7c33c6c004bbafe82", "a b", "\u20ac\U0001f680"])
async def test_the_subject_is_the_owner_and_may_read_and_write(kind: str, subject: str) -> None:
    caller = await tokens(kind).caller(SIGNERS[kind].sign(claims(sub=subject)))
    assert caller == Caller("user", subject, frozenset({"read", "write"}))


async def test_one_of_several_audiences_is_enough(kind: str) -> None:
    assert (await tokens(kind).caller(SIGNERS[kind].sign(claims(aud=["x", AUDIENCE])))).owner == "ann"


async def test_clocks_may_differ_a_little(kind: str) -> None:
    now = int(time.time())
    for payload in (claims(iat=now + 20), claims(exp=now - 20, iat=now - 60), claims(nbf=now + 20)):
        assert (await tokens(kind).caller(SIGNERS[kind].sign(payload))).owner == "ann"


async def test_what_a_token_says_of_scopes_gives_none() -> None:
    token = SIGNERS["secret"].sign(claims(scope="ops complete", scopes=["ops"], local=True))
    assert (await tokens("secret").caller(token)).scopes == {"read", "write"}


async def test_each_published_key_is_used_as_what_it_is() -> None:
    token = jwt.encode(claims(), ED_KEY, "EdDSA", headers={"kid": "ed"})
    assert (await tokens("published keys").caller(token)).owner == "ann"


@pytest.mark.parametrize(("kind", "what"), REFUSED, ids=[f"{kind}: {what}" for kind, what in REFUSED])
async def test_pitfall_60_what_is_not_whole_is_refused(kind: str, what: str) -> None:
    with pytest.raises(Unauthenticated) as raised:
        await tokens(kind).caller(SIGNERS[kind].refused()[what])
    assert str(raised.value) == str(Unauthenticated("any"))


GARBAGE = [
    "",
    " ",
    ".",
    "..",
    "a.b.c",
    "e30.e30.e30",
    "null",
    "\udcff.\udcff.\udcff",
    "\u20ac.\u20ac.\u20ac",
    "A" * 9000,
    "ph_",
]


@pytest.mark.parametrize("text", GARBAGE)
async def test_garbage_is_refused(kind: str, text: str) -> None:
    with pytest.raises(Unauthenticated):
        await tokens(kind).caller(text)
