"""Ends of turns for tests that are not about the agent."""

from datetime import UTC, datetime

from service.model import events as e
from service.model.task import Claim, End

USED = e.Usage(7, 5)
NOON = datetime(2026, 1, 2, 12, 0, 0, 345_000, tzinfo=UTC)


def ended_with(claim: Claim, text: str, *, usage: e.Usage = USED) -> End:
    """The turn succeeded, and this is the answer."""
    return End(
        "succeeded",
        (e.FinishStep(), finish(claim, "succeeded", text, usage)),
        usage,
        NOON,
        answer=({"type": "step-start"}, {"type": "text", "text": text, "state": "done"}),
    )


def bounced(claim: Claim, content: str = "Hi") -> End:
    """The input never reached the model."""
    task = claim.task
    back = e.BounceBackData(content, "Refused.", "authentication_error", task.session_id, task.input_id)
    ending = (
        e.DataBounceBack(back),
        e.FinishStep(),
        e.MessageMetadata(e.FailureMetadata(task.id, "failed", "authentication_error")),
        e.Error("[code:authentication_error] Refused."),
        finish(claim, "failed", "", e.Usage(0, 0)),
    )
    return End("failed", ending, e.Usage(0, 0), NOON, error_type="authentication_error", bounced=True)


def finish(claim: Claim, status: e.EndStatus, output: str, usage: e.Usage) -> e.Finish:
    """The terminal event."""
    times = ("2026-01-02T11:59:59.000Z", "2026-01-02T12:00:00.345Z")
    reason: e.FinishReason = "stop" if status == "succeeded" else "error"
    return e.Finish(reason, e.FinishMetadata(claim.task.id, status, output, usage, *times))
