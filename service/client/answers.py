"""Answers that are no streams: bounded, JSON, or a problem."""

from typing import Any, Final

import aiohttp
import orjson

from service.client.errors import REFUSALS, NotUnderstood, Problem, Refused

MAX_ANSWER_BYTES: Final = 24 * 1024 * 1024
"""No answer that is asked for here is longer: a session's newest messages with a full mailbox, as JSON."""


async def object_of(response: aiohttp.ClientResponse) -> dict[str, Any]:
    """The answer's JSON object. Raises NotUnderstood for anything else, or anything longer than MAX_ANSWER_BYTES."""
    body = await _body(response)
    try:
        plain = orjson.loads(body)
    except orjson.JSONDecodeError:
        plain = None
    if not isinstance(plain, dict):
        raise NotUnderstood(f"What answers sends no JSON object ({response.status}).")
    return plain


def objects_in(answer: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """The objects that an answer lists under a name. Raises NotUnderstood where there is no such list."""
    entries = answer.get(name)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise NotUnderstood(f"What answers lists no {name}.")
    return entries


async def refusal_of(response: aiohttp.ClientResponse) -> Refused | NotUnderstood:
    """The error for an answer that is neither what was asked for nor a reason to try again."""
    if not 400 <= response.status < 500:
        return NotUnderstood(f"What answers says {response.status}.")
    try:
        members = await object_of(response) if response.content_type == "application/problem+json" else {}
    except NotUnderstood:
        members = {}
    words = {name: str(members.pop(name, default)) for name, default in _words(response).items()}
    members.pop("status", None)
    return REFUSALS.get(response.status, Refused)(Problem(status=response.status, **words, members=members))


def _words(response: aiohttp.ClientResponse) -> dict[str, str]:
    return {"title": response.reason or "", "detail": "", "error_type": "http_error"}


async def _body(response: aiohttp.ClientResponse) -> bytes:
    body = b""
    while piece := await response.content.readany():
        body += piece
        if len(body) > MAX_ANSWER_BYTES:
            raise NotUnderstood("What answers sends more than any answer has.")
    return body
