"""Errors as `application/problem+json` (RFC 9457), by one table."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import orjson
import structlog
from aiohttp import web

from service.http.caching import NOT_KEPT
from service.model.errors import (
    InvalidInput,
    KeyReused,
    MailboxFull,
    MessageExists,
    NoBroker,
    NotFound,
    NothingFailed,
    OperationEnded,
    PlayheadError,
    SessionBusy,
    SessionOwned,
    StoreUnavailable,
    Unauthenticated,
)
from service.model.position import InvalidPosition
from service.registry.event_page import LogGone
from service.registry.export import LogStillOpen
from service.sessions.conversations import MessageTooLarge

log = structlog.get_logger()

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

STATUSES: Final[Mapping[type[PlayheadError], int]] = MappingProxyType(
    {
        InvalidPosition: 400,
        Unauthenticated: 401,
        NoBroker: 404,
        NotFound: 404,
        SessionBusy: 409,
        SessionOwned: 409,
        MessageExists: 409,
        OperationEnded: 409,
        NothingFailed: 409,
        LogStillOpen: 409,
        LogGone: 410,
        MessageTooLarge: 413,
        KeyReused: 422,
        InvalidInput: 422,
        MailboxFull: 429,
        StoreUnavailable: 503,
    }
)
"""An error has the status of the first class here that it is one of; whatever is not here is our mistake: 500."""

MEDIA_TYPE: Final = "application/problem+json"

RETRY_AFTER_SECONDS: Final = 1

MAX_ERRORS: Final = 20
"""So many of a body's mistakes are listed; the others are counted."""

NAME_CHARACTERS: Final = 64
"""So much of a field's name is repeated: it may be the client's own."""


class Problem(Exception):
    """A request that is answered with a problem which only the door knows of."""

    def __init__(self, status: int, error_type: str, detail: str, **members: Any) -> None:
        super().__init__(detail)
        self.status = status
        self.error_type = error_type
        self.members = members


def problem(status: int, error_type: str, detail: str, **members: Any) -> web.Response:
    """The answer that says what is wrong: what a person reads is `detail`, what a program reads `error_type`."""
    body = {
        "type": "about:blank",
        "title": title_of(status),
        "status": status,
        "detail": detail,
        "error_type": error_type,
        **members,
    }
    headers = {"Cache-Control": NOT_KEPT}  # here, since what the parser refuses goes past every signal
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if status in (429, 503):
        headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    data = orjson.dumps(body, option=orjson.OPT_APPEND_NEWLINE)
    answer = web.Response(status=status, body=data, content_type=MEDIA_TYPE, headers=headers)
    if error_type in _CLOSING:
        answer.force_close()
    return answer


def invalid(errors: Sequence[Mapping[str, Any]]) -> Problem:
    """What pydantic found in a body, by field: the first MAX_ERRORS, in our words, without the values."""
    listed = [
        {"field": ".".join(map(_name, error["loc"])), "message": _message(error)} for error in errors[:MAX_ERRORS]
    ]
    detail = "The body is not what this route takes."
    if len(errors) > MAX_ERRORS:
        detail += f" The first {MAX_ERRORS} of {len(errors)} mistakes are listed."
    return Problem(422, "validation_error", detail, errors=listed)


def _name(part: str | int) -> str:
    name = str(part)
    return name if len(name) <= NAME_CHARACTERS else name[:NAME_CHARACTERS] + "…"


def _message(error: Mapping[str, Any]) -> str:
    kind, given = error["type"], error.get("ctx", {})
    if given.get("field_type") == "Value":  # a text that is checked by a function, too
        kind = f"string_{kind}"
    return _MESSAGES.get(kind, "This is not what is taken here.").format(**given)


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every error leaves as a problem; nothing of an error that is our own mistake is shown."""
    try:
        return await handler(request)
    except Problem as error:
        return problem(error.status, error.error_type, str(error), **error.members)
    except PlayheadError as error:
        status = status_of(type(error))
        if status is not None:
            return problem(status, error.error_type, str(error))
        log.exception("error_without_status", error=type(error).__name__, route=route_of(request))
        return mistake()
    except web.HTTPException as error:
        return answered(error)
    except Exception:
        log.exception("request_crashed", method=request.method, route=route_of(request))
        return mistake()


def status_of(kind: type[PlayheadError]) -> int | None:
    """How an error of this class is answered; None for our own mistake."""
    return next((status for listed, status in STATUSES.items() if issubclass(kind, listed)), None)


def title_of(status: int) -> str:
    """The name of a status."""
    return _TITLES.get(status, "Error")


def mistake() -> web.Response:
    """The answer to what is our own mistake."""
    return problem(500, "unexpected_error", "Something went wrong on our side.")


def answered(error: web.HTTPException) -> web.Response:
    """What aiohttp refuses by itself: no such route, no such method, a body that is too large."""
    answer = problem(error.status, _TYPES.get(error.status, "http_error"), _DETAILS.get(error.status, error.reason))
    if "Allow" in error.headers:
        answer.headers["Allow"] = error.headers["Allow"]
    return answer


def route_of(request: web.Request) -> str:
    """The route that was asked, as the table has it: without ids, and without a query, which may hold a token."""
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else "unknown"


_CLOSING: Final = frozenset({"malformed_request", "malformed_body", "request_timeout"})
"""After these nobody can say where the next request begins: the connection is closed."""

_TITLES: Final = MappingProxyType(
    {
        400: "Bad Request",
        401: "Unauthorized",
        403: "Forbidden",
        404: "Not Found",
        405: "Method Not Allowed",
        408: "Request Timeout",
        409: "Conflict",
        410: "Gone",
        413: "Content Too Large",
        415: "Unsupported Media Type",
        417: "Expectation Failed",
        422: "Unprocessable Content",
        429: "Too Many Requests",
        500: "Internal Server Error",
        503: "Service Unavailable",
    }
)
_TYPES: Final = MappingProxyType({404: "not_found", 405: "method_not_allowed", 413: "body_too_large"})
_DETAILS: Final = MappingProxyType(
    {
        404: "There is no such thing here.",
        405: "This route does not take this method.",
        413: "The body is larger than this route takes.",
    }
)
_MESSAGES: Final = MappingProxyType(
    {
        "missing": "This field is needed.",
        "extra_forbidden": "There is no such field.",
        "int_type": "This must be a whole number.",
        "float_type": "This must be a number.",
        "finite_number": "This must be a number.",
        "greater_than_equal": "This must be at least {ge}.",
        "less_than_equal": "This must be at most {le}.",
        "string_too_short": "This takes at least {min_length} character.",
        "string_too_long": "This takes at most {max_length} characters.",
        "string_type": "This must be a string.",
        "bool_type": "This must be true or false.",
        "string_pattern_mismatch": "This must be 1 to 128 printable ASCII characters without spaces.",
        "list_type": "This must be an array.",
        "model_type": "This must be an object.",
        "literal_error": "This must be {expected}.",
        "too_short": "This takes at least {min_length} item.",
        "too_long": "This takes at most {max_length} items.",
        "value_error": "{error}",
    }
)
"""By pydantic's word for a mistake."""
