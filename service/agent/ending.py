"""How a turn ends: pure decisions, from what happened to what is stored and what the log is owed.

What is owed does not depend on how far the log came: which parts and steps are still open is seen when it is appended.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final, Literal

from service.model import events as e
from service.model.encoding import rfc3339
from service.model.failures import message_for
from service.model.fold import LogFold
from service.model.ids import MessageId
from service.model.task import Claim, End

MAX_OUTPUT_CHARACTERS: Final = 40_000
"""Of the final output in the log: its head and its tail; the message has it whole. At six bytes each they fit."""


_BEFORE_STEP_END: Final = (e.DataBounceBack, e.DataAuthenticationRequired)


def succeeded(claim: Claim, fold: LogFold, reason: e.FinishReason, now: datetime) -> End:
    """The model said all that it had to say."""
    return End(
        "succeeded",
        (_finish(claim, fold, "succeeded", reason, now),),
        fold.usage,
        now,
        answer=tuple(fold.message_parts()),
    )


def failed(claim: Claim, fold: LogFold, error_type: str, now: datetime, bounced: "Bounced | None" = None) -> End:
    """Something went wrong for good. What was said until then is kept; an input that reached nobody is taken back."""
    return End(
        "failed",
        (
            *(bounced.chunks if bounced else ()),
            e.MessageMetadata(e.FailureMetadata(claim.task.id, "failed", error_type)),
            e.Error(f"[code:{error_type}] {message_for(error_type)}"),
            _finish(claim, fold, "failed", "error", now),
        ),
        fold.usage,
        now,
        error_type=error_type,
        answer=None if bounced else tuple(fold.message_parts()) or None,
        bounced=bounced is not None,
    )


def cancelled(claim: Claim, fold: LogFold, now: datetime) -> End:
    """Its owner wanted it to end. What was said until then is kept."""
    return End(
        "cancelled",
        (e.Abort("cancelled by owner"), _finish(claim, fold, "cancelled", "interrupted", now)),
        fold.usage,
        now,
        answer=tuple(fold.message_parts()) or None,
    )


class Bounced:
    """An input that is given back to its sender, and what its sender is told."""

    def __init__(
        self, claim: Claim, message_id: MessageId, parts: Sequence[e.InputPart], error_type: str, provider: str
    ) -> None:
        text = "\n".join(part.text for part in parts if isinstance(part, e.TextPart))
        back = e.BounceBackData(text, message_for(error_type), error_type, claim.task.session_id, message_id)
        self.chunks: tuple[e.Chunk, ...] = (e.DataBounceBack(back),)
        if error_type == "authentication_error":
            self.chunks += (e.DataAuthenticationRequired(e.AuthenticationData(provider)),)


def as_told(claim: Claim, fold: LogFold, now: datetime) -> End:
    """The end that a closed log tells of, for a database that was set back to before it."""
    if fold.finish is None:
        return failed(claim, fold, "unexpected_error", now)
    metadata = fold.finish.message_metadata
    failures = (c.message_metadata for c in fold.tail if isinstance(c, e.MessageMetadata))
    error_type = next((f.error_type for f in failures if isinstance(f, e.FailureMetadata)), None)
    bounced = any(isinstance(chunk, e.DataBounceBack) for chunk in fold.tail)
    answer = None if bounced else tuple(fold.message_parts()) or None
    return End(metadata.status, (fold.finish,), metadata.usage, now, error_type, answer, bounced)


def closing(claim: Claim, fold: LogFold, ending: Sequence[e.Chunk]) -> list[e.Chunk]:
    """What to append to a log that stands like this: the rest of its ending, behind the close of whatever is open.

    A holder before may have appended a part of it; a store may have lost what stood there when it was decided, the
    beginning too.
    """
    tail = [chunk for chunk in fold.tail if not isinstance(chunk, e.FinishStep)]  # it stands amid a bounced ending
    said = next((k for k in range(len(ending), 0, -1) if tail[-k:] == list(ending[:k])), 0)
    rest = list(ending[said:])
    step_end: list[e.Chunk] = [e.FinishStep()] if fold.step_is_open else []
    taken_back = next((i for i, chunk in enumerate(rest) if not isinstance(chunk, _BEFORE_STEP_END)), len(rest))
    begin: list[e.Chunk] = []
    if fold.message_id is None:
        begin.append(e.Start(claim.task.answer_id, e.StartMetadata(claim.task.id, claim.task.session_id)))
    return [*begin, *fold.open_texts, *rest[:taken_back], *step_end, *rest[taken_back:]]


def _finish(
    claim: Claim, fold: LogFold, status: e.EndStatus, reason: e.FinishReason, finished_at: datetime
) -> e.Finish:
    output, truncated = shortened(fold.output())
    times = (rfc3339(claim.task.started_at or finished_at), rfc3339(finished_at))
    metadata = e.FinishMetadata(claim.task.id, status, output, fold.usage, *times, truncated=truncated)
    return e.Finish(reason, metadata)


def shortened(text: str) -> tuple[str, Literal[True] | None]:
    """A text that fits, and True where that is only its head and its tail."""
    if len(text) <= MAX_OUTPUT_CHARACTERS:
        return text, None
    half = MAX_OUTPUT_CHARACTERS // 2
    return f"{text[:half]}\n…\n{text[-half:]}", True
