"""The contract as OpenAPI 3.1, made at the start from the table of routes."""

import re
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.metadata import version
from itertools import groupby
from operator import itemgetter
from typing import Any, Final

import orjson
from aiohttp import web
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode

from service.http import answers
from service.http.auth import Takes
from service.http.problems import MEDIA_TYPE, status_of, title_of
from service.http.request_ids import HEADER
from service.http.route import JSON, TEXT, Answer, Parameter, Route
from service.model.errors import InvalidInput, NotFound, PlayheadError, StoreUnavailable, Unauthenticated

DOCUMENT: Final = web.AppKey("openapi", bytes)

Refusal = tuple[int, str]
"""A status, and the `error_type` that comes with it."""

_ANY: Final[tuple[Refusal, ...]] = (
    (400, "malformed_request"),
    (403, "forbidden_host"),
    (403, "forbidden_origin"),
    (417, "http_error"),
    (500, "unexpected_error"),
)
_WITH_BODY: Final[tuple[Refusal, ...]] = (
    (400, "malformed_body"),
    (400, "malformed_json"),
    (408, "request_timeout"),
    (413, "body_too_large"),
    (415, "unsupported_media_type"),
)
_ABOUT: Final = """\
A task's log can be followed from any position; see the README. Whoever asks shows one credential; a service that asks
nobody who they are needs none. An error is a problem (RFC 9457) whose `error_type` is for programs. Each answer has an
`X-Request-Id`, and says `Cache-Control: no-store, private` unless it is a stream, the export of an archived log or a
file of the page. A method that a path does not take is a 405.
"""
_SCHEMES: Final = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key, or a token of the issuer (JWT)"},
    "api_key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "signature": {
        "type": "apiKey",
        "in": "header",
        "name": "webhook-signature",
        "description": "A remote tool's, by Standard Webhooks, with `webhook-id` and `webhook-timestamp`",
    },
    "stream_token": {
        "type": "apiKey",
        "in": "query",
        "name": "token",
        "description": "Opens one task's stream; see `mint_token`",
    },
}
_HEADERS: Final = {
    HEADER: {"description": "The request's own, or a new one", "required": True, "schema": {"type": "string"}},
    "Retry-After": {"description": "In seconds", "required": True, "schema": {"type": "integer"}},
    "WWW-Authenticate": {"required": True, "schema": {"const": "Bearer"}},
    "ETag": {"description": "Of an archived log, which never changes", "schema": {"type": "string"}},
}
_REQUEST_ID: Final = {
    "name": HEADER,
    "in": "header",
    "description": "The request's name in the answer and in log lines; another one is taken for what cannot be one",
    "schema": {"type": "string"},
}
_HEADERS_OF_STATUS: Final = {401: ("WWW-Authenticate",), 429: ("Retry-After",), 503: ("Retry-After",)}


class _Schema(GenerateJsonSchema):
    """Without titles; and what can only have one value, as an event's `type`, is always there."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def field_is_required(self, field: Any, total: bool) -> bool:  # noqa: FBT001 - pydantic's own signature
        inner = field["schema"]
        is_fixed = inner["type"] == "default" and inner["schema"]["type"] == "literal"
        return is_fixed or super().field_is_required(field, total)


async def answer(request: web.Request) -> web.Response:
    """The contract."""
    return web.Response(body=request.app[DOCUMENT], content_type=JSON)


def document(table: Sequence[Route]) -> bytes:
    """The contract of these routes, as JSON."""
    schemas, components = _schemas(tuple(_types(table)))
    refused: dict[str, Any] = {}
    described: dict[str, dict[str, Any]] = {}
    for route in table:
        described.setdefault(route.path, {})[route.method.lower()] = _operation(route, schemas, refused)
    whole = {
        "openapi": "3.1.0",
        "info": {"title": "Playhead", "version": version("playhead"), "description": _ABOUT},
        "paths": described,
        "components": {
            "schemas": components,
            "responses": refused,
            "headers": _HEADERS,
            "parameters": {HEADER: _REQUEST_ID},
            "securitySchemes": _SCHEMES,
        },
    }
    return orjson.dumps(whole)


_Typed = tuple[type, JsonSchemaMode]


def _types(table: Iterable[Route]) -> Iterable[_Typed]:
    """All that is posted and answered."""
    yield answers.Problem, "serialization"
    for contract in (route.contract for route in table):
        if contract.body is not None:
            yield contract.body, "validation"
        for each in contract.answers:
            if each.body is not None:
                yield each.body, "serialization"


@cache
def _schemas(types: tuple[_Typed, ...]) -> tuple[dict[Any, Any], dict[str, Any]]:
    """The schema of each, and the components that they refer to."""
    adapters = [(kind, mode, TypeAdapter[Any](kind)) for kind, mode in dict.fromkeys(types)]
    schemas, rest = TypeAdapter.json_schemas(
        adapters, schema_generator=_Schema, ref_template="#/components/schemas/{model}"
    )
    return {kind: schema for (kind, _), schema in schemas.items()}, rest["$defs"]


def _operation(route: Route, schemas: dict[Any, Any], refused: dict[str, Any]) -> dict[str, Any]:
    """One route. What it refuses is put among the components, where others find it too."""
    contract, is_head = route.contract, route.method == "HEAD"
    responses = {str(each.status): _done(each, schemas, is_head=is_head) for each in contract.answers}
    for status, kinds in groupby(sorted(refusals(route)), key=itemgetter(0)):
        types = [error_type for _, error_type in kinds]
        media_type = None if is_head else TEXT if contract.refuses_in_words else MEDIA_TYPE
        name = "-".join(
            [str(status), *types, *([] if media_type == MEDIA_TYPE else [str(media_type).partition("/")[0]])]
        )
        refused[name] = _refused(status, types, media_type)
        responses[str(status)] = _ref("responses", name)
    described = {
        "operationId": contract.name + ("_head" if is_head else ""),
        "summary": contract.summary,
        "parameters": [
            *({"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in _names(route)),
            *map(_parameter, contract.parameters),
            _ref("parameters", HEADER),
        ],
        "responses": responses,
        "security": _security(route),
    }
    if contract.body is not None:
        content = {JSON: {"schema": schemas[contract.body]}}
        described["requestBody"] = {"required": not _takes_nothing(contract.body), "content": content}
    return described


def refusals(route: Route) -> set[Refusal]:
    """All problems that a route answers with."""
    raised = {*route.contract.raises, *(each.refused for each in route.contract.parameters if each.refused)}
    found = set(_ANY)
    if isinstance(route.takes, Takes):
        found.add((403, "forbidden"))
        raised |= {Unauthenticated, StoreUnavailable}
    if {"session_id", "task_id", "operation_id"}.intersection(_names(route)):  # a chat is there as soon as it is named
        raised.add(NotFound)
    if route.contract.body is not None:
        found.update(_WITH_BODY)
        raised.add(InvalidInput)
    return found | {_refusal(kind) for kind in raised}


def _refusal(kind: type[PlayheadError]) -> Refusal:
    status = status_of(kind)
    if status is None:
        raise ValueError(f"{kind.__name__} has no status, and so is in no contract")
    return status, kind.error_type


def _names(route: Route) -> list[str]:
    return re.findall(r"\{(\w+)\}", route.path)


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": parameter.place,
        "description": parameter.says,
        "schema": parameter.schema,
    }


def _takes_nothing(body: type[BaseModel]) -> bool:
    """Whether no body will do."""
    try:
        body()
    except ValidationError:
        return False
    return True


def _security(route: Route) -> list[dict[str, list[str]]]:
    """Each line is a way in: a credential with one of these scopes."""
    if not isinstance(route.takes, Takes):
        return []
    ways: list[dict[str, list[str]]]
    ways = [{name: [scope]} for scope in sorted(route.takes.scopes) for name in ("bearer", "api_key")]
    ways += [{"signature": []}] if route.takes.signatures else []
    return [*ways, {"stream_token": []}] if route.takes.stream_tokens else ways


def _done(answer: Answer, schemas: dict[Any, Any], *, is_head: bool) -> dict[str, Any]:
    described = {"description": answer.says, "headers": _headers(HEADER, *answer.headers)}
    if answer.body is None or is_head:
        return described
    return described | {"content": {answer.media_type: {"schema": schemas[answer.body]}}}


def _form(route: Route) -> tuple[str | None, str]:
    """The media type of a route's problems, and a name for it where it is another one than usual."""
    if route.method == "HEAD":
        return None, "-head"
    return (TEXT, "-in_words") if route.contract.refuses_in_words else (MEDIA_TYPE, "")


def _refused(status: int, types: list[str], media_type: str | None) -> dict[str, Any]:
    described = {"description": title_of(status), "headers": _headers(HEADER, *_HEADERS_OF_STATUS.get(status, ()))}
    if media_type is None:
        return described
    if media_type == TEXT:
        return described | {"content": {TEXT: {"schema": {"type": "string"}}}}
    kind = {"properties": {"status": {"const": status}, "error_type": {"enum": types}}}
    schema = {"allOf": [_ref("schemas", answers.Problem.__name__), kind]}
    return described | {"content": {media_type: {"schema": schema}}}


def _headers(*names: str) -> dict[str, Any]:
    return {name: _ref("headers", name) for name in names}


def _ref(kind: str, name: str) -> dict[str, str]:
    return {"$ref": f"#/components/{kind}/{name}"}
