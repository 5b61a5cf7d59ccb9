"""Signatures by Standard Webhooks: which remote tool signed a request.

What is signed is `<webhook-id>.<webhook-timestamp>.<body>`. The library knows how, and signs; it is not asked to
verify, because it reads the clock itself, and raises whatever decoding raises.
"""

import hmac
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Final

from standardwebhooks import Webhook

from service.model.errors import Unauthenticated
from service.model.remote import RemoteTool

TOLERANCE_SECONDS: Final = 300
"""So far the time of a signature may be from ours, both ways. Within it a request can be sent again by whoever saw it:
that is harmless only because what it did is remembered by its `webhook-id`."""

MAX_ID_CHARACTERS: Final = 255
MAX_SIGNATURES_CHARACTERS: Final = 2048
"""Of the header, which may hold several signatures; a longer one is refused."""

ID: Final = "webhook-id"
TIMESTAMP: Final = "webhook-timestamp"
SIGNATURE: Final = "webhook-signature"

_ID: Final = re.compile(rf"[!-~]{{1,{MAX_ID_CHARACTERS}}}", re.ASCII)
_SECONDS: Final = re.compile(r"[0-9]{1,11}", re.ASCII)
_SIGNATURES: Final = re.compile(rf"[ -~]{{1,{MAX_SIGNATURES_CHARACTERS}}}", re.ASCII)


class Signatures:
    """Judges signatures by the tools' secrets, each of which belongs to one tool. `now` is the time of day in UTC."""

    def __init__(self, tools: Iterable[RemoteTool], now: Callable[[], datetime]) -> None:
        self._webhooks = {tool.name: Webhook(tool.secret) for tool in tools}
        self._now = now

    def tool_of(self, headers: Mapping[str, str], body: bytes) -> str:
        """The name of the tool that signed these bytes. Raises Unauthenticated.

        `headers` are looked up in small letters. Every secret is tried, and each comparison takes constant time. All of
        it takes a few milliseconds a tool for a body of 1 MiB.
        """
        message_id, seconds = _shown(_ID, headers, ID), _shown(_SECONDS, headers, TIMESTAMP)
        signatures = _shown(_SIGNATURES, headers, SIGNATURE).split(" ")
        at = datetime.fromtimestamp(int(seconds), UTC)
        age = (self._now() - at).total_seconds()
        if abs(age) > TOLERANCE_SECONDS:
            raise Unauthenticated("expired_signature" if age > 0 else "early_signature")
        try:
            text = body.decode()
        except UnicodeDecodeError:
            raise Unauthenticated("malformed_signed_body") from None
        signers = [
            name
            for name, webhook in self._webhooks.items()
            if _is_among(webhook.sign(message_id, at, text), signatures)
        ]
        if not signers:
            raise Unauthenticated("wrong_signature")
        return signers[0]


def _shown(shape: re.Pattern[str], headers: Mapping[str, str], name: str) -> str:
    value = headers.get(name, "")
    if not shape.fullmatch(value):
        raise Unauthenticated("malformed_signature" if value else "missing_signature")
    return value


def _is_among(right: str, signatures: list[str]) -> bool:
    return any(hmac.compare_digest(right, each) for each in signatures)
