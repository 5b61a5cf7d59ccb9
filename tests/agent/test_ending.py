"""What a log is owed, wherever a loss has left it: it can always be followed to its end."""

from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from service.agent.ending import Bounced, closing, failed, succeeded
from service.model import events as e
from service.model.fold import LogFold
from service.model.ids import Epoch, MessageId, PartId, SessionId, TaskId
from service.model.task import Claim, Task

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TASK = Task(
    TaskId("t"),
    SessionId("s"),
    "turn",
    "running",
    MessageId("i"),
    MessageId("a"),
    NOW,
    NOW,
    None,
    None,
    e.Usage(0, 0),
    None,
    1,
)
CLAIM = Claim(TASK, Epoch(1), None, 0)
QUESTION = (e.TextPart("Hi"),)
BEGUN: list[e.Chunk] = [
    e.Start(TASK.answer_id, e.StartMetadata(TASK.id, TASK.session_id)),
    e.DataInput(e.InputData(TASK.input_id, QUESTION)),
    e.DataAttempt(e.AttemptData(CLAIM.epoch)),
    e.StartStep(),
]
SAID: list[e.Chunk] = [
    e.ReasoningStart(PartId("p1")),
    e.ReasoningDelta(PartId("p1"), "Hm"),
    e.ReasoningEnd(PartId("p1")),
    e.TextStart(PartId("p2")),
    e.TextDelta(PartId("p2"), "Hello"),
    e.TextEnd(PartId("p2")),
]
CALL_ENDED = e.MessageMetadata(e.CallMetadata("stop", e.Usage(1, 2), 3, 4))


def folded(chunks: Sequence[e.Chunk]) -> LogFold:
    fold = LogFold()
    for chunk in chunks:
        fold.apply(chunk)
    return fold


def owed(name: str) -> tuple[list[e.Chunk], Sequence[e.Chunk]]:
    """A log up to where its end is decided, and what is decided."""
    match name:
        case "succeeded":
            log = [*BEGUN, *SAID, CALL_ENDED]
            return log, succeeded(CLAIM, folded(log), "stop", NOW).ending
        case "failed":
            log = [*BEGUN, *SAID]
            return log, failed(CLAIM, folded(log), "timeout", NOW).ending
        case "failed in front of its step":
            return BEGUN[:3], failed(CLAIM, folded(BEGUN[:3]), "unexpected_error", NOW).ending
        case _:
            error_type = name.split()[1]
            bounced = Bounced(CLAIM, MessageId("i"), QUESTION, error_type, "the model")
            return BEGUN, failed(CLAIM, folded(BEGUN), error_type, NOW, bounced).ending


@pytest.mark.parametrize(
    "name", ["succeeded", "failed", "failed in front of its step", "bounced timeout", "bounced authentication_error"]
)
def test_whatever_is_lost_of_an_ending_the_rest_brings_the_log_to_its_end(name: str) -> None:
    log, ending = owed(name)
    whole = [*log, *closing(CLAIM, folded(log), ending)]
    assert folded(whole).finish == whole[-1]
    for kept in range(len(whole)):
        again = [*whole[:kept], *closing(CLAIM, folded(whole[:kept]), ending)]
        assert folded(again).finish == whole[-1]
        if kept >= len(log):
            assert again == whole
