"""What can go wrong for a client. No message has the token in it."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from service.model.errors import NotFound, PlayheadError
from service.model.events import GapData


@dataclass(frozen=True, slots=True)
class Problem:
    """What a service says of a request that it refuses, as `application/problem+json` has it."""

    status: int
    title: str
    detail: str
    error_type: str
    members: Mapping[str, Any]
    """What stands beside these: `errors` by field, the fields of a gap."""


class Refused(PlayheadError):
    """The service refused the request; `problem` says why. It will refuse it again."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail or f"{problem.status} {problem.title}".strip())
        self.problem = problem
        self.error_type = problem.error_type


class Unauthenticated(Refused):
    """401: a token is needed, or this one is not taken."""


class Forbidden(Refused):
    """403: not with this token, or not from here."""


class NoSuchThing(Refused, NotFound):
    """404: there is no such session, task or operation, or it is somebody else's."""


class Gone(Refused):
    """410: the log is gone, or does not go on from this position."""


class Gap(PlayheadError):
    """The log does not go on from where the reader stands: what was there is gone."""

    error_type = "gap"

    def __init__(self, data: GapData) -> None:
        known = f": {data.lost} events are known to be gone" if data.lost else ""
        super().__init__(
            f"The log does not go on from {data.requested}{known}; "
            f"what there is goes from {data.oldest} to {data.latest}."
        )
        self.data = data


class Incomplete(PlayheadError):
    """What came of the export is not all of it, or not what was sent."""

    error_type = "incomplete_export"


class Unreachable(PlayheadError):
    """The service does not answer, or says that it cannot now. Nobody knows whether a request took effect."""

    error_type = "service_unavailable"


class NotUnderstood(PlayheadError):
    """What answers does not speak as Playhead does."""

    error_type = "invalid_response"


REFUSALS: Final[Mapping[int, type[Refused]]] = MappingProxyType(
    {401: Unauthenticated, 403: Forbidden, 404: NoSuchThing, 410: Gone}
)
"""By status; any other is Refused."""
