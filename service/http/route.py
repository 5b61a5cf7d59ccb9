"""A route: its line in the table, and what its contract says of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from pydantic import BaseModel

from service.http.auth import Taken
from service.http.problems import Handler
from service.model.errors import InvalidInput, PlayheadError

JSON: Final = "application/json"
JSONL: Final = "application/jsonl"
TEXT: Final = "text/plain"
SSE: Final = "text/event-stream"


@dataclass(frozen=True, slots=True)
class Parameter:
    """What may come in the query, or in a header, as JSON schema. `refused` is raised for what it cannot be."""

    name: str
    schema: Mapping[str, Any]
    says: str
    place: Literal["query", "header"] = "query"
    refused: type[PlayheadError] | None = InvalidInput


@dataclass(frozen=True, slots=True)
class Answer:
    """One way in which a request is done. `body` is the type of what is in it: of each event, or line, of a stream."""

    status: int
    says: str
    body: Any = None
    media_type: str = JSON
    headers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Contract:
    """What a client has to know. What every route refuses, or all with a body, an id or a parameter, is not listed."""

    name: str
    """As programs call it; no other route has it, but for HEAD beside GET."""
    summary: str
    answers: tuple[Answer, ...]
    parameters: tuple[Parameter, ...] = ()
    body: type[BaseModel] | None = None
    raises: tuple[type[PlayheadError], ...] = ()
    """What else its handler raises that is answered with a problem."""
    refuses_in_words: bool = False
    """Whether a problem is its text alone, since that is what the client shows."""


@dataclass(frozen=True, slots=True)
class Route:
    """A line of the table. None can be without what it takes, and without its contract."""

    method: str
    path: str
    handler: Handler
    takes: Taken
    contract: Contract
