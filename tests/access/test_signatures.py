"""Signatures by Standard Webhooks: who signed, within which time, and what is refused before anything is compared."""

import base64
import hashlib
import hmac
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pytest
from multidict import CIMultiDict
from standardwebhooks import Webhook

from service.access.signatures import MAX_SIGNATURES_CHARACTERS, TOLERANCE_SECONDS, Signatures
from service.model.errors import Unauthenticated
from service.model.remote import RemoteTool

NOW = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)
BODY = b'{"operation_id":"0190","success":true,"result":"\xc3\xa4"}'
SECRETS = {name: f"whsec_{base64.b64encode(name.encode() * 8).decode()}" for name in ("render", "search", "print")}
TOOLS = [RemoteTool(name, "", {"type": "object"}, "http://h/", secret) for name, secret in SECRETS.items()]


def judge(moved_seconds: float = 0) -> Signatures:
    return Signatures(TOOLS, lambda: NOW + timedelta(seconds=moved_seconds))


def signed(name: str = "render", body: bytes = BODY, at: datetime = NOW, message_id: str = "msg_1") -> dict[str, str]:
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Webhook(SECRETS[name]).sign(message_id, at, body.decode()),
    }


def refusal(headers: Mapping[str, str], body: bytes = BODY, signatures: Signatures | None = None) -> str:
    with pytest.raises(Unauthenticated) as raised:
        (signatures or judge()).tool_of(headers, body)
    assert "whsec_" not in f"{raised.value!r} {raised.value} {raised.value.reason}"
    return raised.value.reason


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize("body", [BODY, b"", b"\x00\r\n"])
def test_it_is_the_tool_that_signed(name: str, body: bytes) -> None:
    headers = signed(name, body)
    assert judge().tool_of(headers, body) == name
    assert judge().tool_of(CIMultiDict({each.title(): value for each, value in headers.items()}), body) == name


def test_it_is_signed_as_the_specification_says() -> None:
    """By hand: HMAC-SHA256 over id, time and body with dots between them, with the decoded secret."""
    key = base64.b64decode(SECRETS["print"].removeprefix("whsec_"))
    content = b"msg_1.%d.%b" % (NOW.timestamp(), BODY)
    signature = base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode()
    assert judge().tool_of(signed() | {"webhook-signature": f"v1,{signature}"}, BODY) == "print"


def test_one_of_several_signatures_is_enough() -> None:
    """As when a secret is changed, or a sender has a newer scheme, too."""
    headers = signed("search")
    right = headers["webhook-signature"]
    for several in (
        f"v1,AAAA {right}",
        f"{right} v1a,AAAA",
        f"v2 , v1a,a,b {right} v1,",
        f"{signed('render', b'')['webhook-signature']} {right}",
    ):
        headers["webhook-signature"] = several
        assert judge().tool_of(headers, BODY) == "search"


def test_what_was_not_signed_so_is_refused() -> None:
    right = signed()["webhook-signature"]
    assert refusal(signed(), BODY + b" ") == "wrong_signature"
    assert refusal(signed(), b"") == "wrong_signature"
    assert refusal(signed() | {"webhook-id": "msg_2"}) == "wrong_signature"
    assert refusal(signed() | {"webhook-timestamp": str(int(NOW.timestamp()) + 1)}) == "wrong_signature"
    for wrong in (
        right.removeprefix("v1,"),
        right.replace("v1", "v2"),
        right[:-1],
        f"{right}A",
        "v1,",
        "v1",
        " ",
        ",",
        right.replace(",", ", "),
    ):
        assert refusal(signed() | {"webhook-signature": wrong}) == "wrong_signature"
    assert refusal(signed(), signatures=Signatures([], lambda: NOW)) == "wrong_signature"
    stranger = Webhook(base64.b64encode(b"x" * 24).decode()).sign("msg_1", NOW, BODY.decode())
    assert refusal(signed() | {"webhook-signature": stranger}) == "wrong_signature"


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_what_is_missing_is_refused(name: str) -> None:
    headers = signed()
    assert refusal(headers | {name: ""}) == "missing_signature"
    del headers[name]
    assert refusal(headers) == "missing_signature"


MALFORMED = [
    ("webhook-id", "m" * 256),
    ("webhook-id", "m\n"),
    ("webhook-id", "mü"),
    ("webhook-id", "\udcff"),
    ("webhook-timestamp", "9" * 12),
    ("webhook-timestamp", "9" * 100_000),
    ("webhook-timestamp", "1777863721.0"),
    ("webhook-timestamp", "-1"),
    ("webhook-timestamp", "+1777863721"),
    ("webhook-timestamp", " 1777863721"),
    ("webhook-timestamp", "١٧٧٧٨٦٣٧٢١"),
    ("webhook-timestamp", "nan"),
    ("webhook-timestamp", "1e9"),
    ("webhook-signature", "v1,ü"),
    ("webhook-signature", "v1,\udcff"),
    ("webhook-signature", "v1,\x00"),
    ("webhook-signature", "v1,A " * (MAX_SIGNATURES_CHARACTERS // 5 + 1)),
]


@pytest.mark.parametrize(("name", "value"), MALFORMED, ids=[f"{name} {value[:16]!r}" for name, value in MALFORMED])
def test_what_has_not_the_form_is_refused(name: str, value: str) -> None:
    assert refusal(signed() | {name: value}) == "malformed_signature"


def test_a_body_that_is_no_text_is_refused() -> None:
    assert refusal(signed(), b"\xff") == "malformed_signed_body"


@pytest.mark.parametrize("seconds", [0, TOLERANCE_SECONDS, -TOLERANCE_SECONDS])
def test_pitfall_40_within_the_tolerance_the_same_request_is_taken_again(seconds: int) -> None:
    """Whoever asks remembers its id: a signature alone cannot tell a repeat from a replay."""
    assert [judge(seconds).tool_of(signed(), BODY) for _ in range(2)] == ["render", "render"]


def test_pitfall_40_after_the_tolerance_the_same_request_is_refused() -> None:
    headers = signed()
    assert judge().tool_of(headers, BODY) == "render"
    assert refusal(headers, signatures=judge(TOLERANCE_SECONDS + 0.001)) == "expired_signature"
    assert refusal(headers, signatures=judge(-TOLERANCE_SECONDS - 0.001)) == "early_signature"
    assert refusal(signed() | {"webhook-timestamp": "0"}) == "expired_signature"
    assert refusal(signed() | {"webhook-timestamp": "9" * 11}) == "early_signature"


def test_pitfall_40_one_of_a_tool_does_not_speak_for_another() -> None:
    alone = Signatures(TOOLS[1:], lambda: NOW)
    assert refusal(signed("render"), signatures=alone) == "wrong_signature"
    assert alone.tool_of(signed("print"), BODY) == "print"
