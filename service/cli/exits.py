"""How a command ends: its exit code says what became of it, and of an error which kind it was."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from service.cli.streams import NobodyReads
from service.client import Gap, Gone, Incomplete, NotUnderstood, Unreachable
from service.model.errors import NotFound, PlayheadError, StoreUnavailable, StoreUnreachable
from service.registry.event_page import LogGone

TASK_FAILED: Final = 1
USAGE: Final = 2
NOT_FOUND: Final = 3
NOT_PROVEN: Final = 4
UNREACHABLE: Final = 5
INTERRUPTED: Final = 130
NOBODY_READS: Final = 141

MEANINGS: Final[Mapping[int, str]] = MappingProxyType(
    {
        0: "done; where a task was followed to its end, it succeeded",
        TASK_FAILED: "the task failed or was cancelled; `serve` had to leave something behind",
        USAGE: "a wrong option or setting, a token that is not taken, or what is refused: stderr says which",
        NOT_FOUND: "there is no such task, session, operation or dead letter, or it is somebody else's; or no broker",
        NOT_PROVEN: "events are missing, or what was read is not what was written",
        UNREACHABLE: "the service or a store does not answer, or what answers is no Playhead",
        INTERRUPTED: "Ctrl-C",
        NOBODY_READS: "the pipe into which it wrote was closed",
    }
)

HELP: Final = "Exit codes:\n\n" + "\n\n".join(f"{code}  {meaning}" for code, meaning in MEANINGS.items())


class ProofFailed(PlayheadError):
    """What was read is not what was written."""


_CODES: Final[tuple[tuple[type[PlayheadError], int], ...]] = (
    (NotFound, NOT_FOUND),
    (Gap, NOT_PROVEN),
    (Gone, NOT_PROVEN),
    (LogGone, NOT_PROVEN),
    (Incomplete, NOT_PROVEN),
    (ProofFailed, NOT_PROVEN),
    (Unreachable, UNREACHABLE),
    (NotUnderstood, UNREACHABLE),
    (StoreUnavailable, UNREACHABLE),
    (StoreUnreachable, UNREACHABLE),
    (NobodyReads, NOBODY_READS),
)


def code_of(error: BaseException) -> int:
    """The code of an error; that of usage for all that have none of their own."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), USAGE)


def code_of_task(status: Any) -> int:
    """The code for how a task stands at its end."""
    return 0 if status == "succeeded" else TASK_FAILED
