"""What logs say."""

from collections.abc import Sequence
from typing import Any

import pytest

from service.model import events as e
from service.model.fold import BrokenLog, LogFold
from service.model.ids import Epoch, MessageId, PartId, SessionId, TaskId

TASK, SESSION = TaskId("task_1"), SessionId("ses_1")
START = e.Start(MessageId("m1"), e.StartMetadata(TASK, SESSION))
CALL = e.MessageMetadata(e.CallMetadata("stop", e.Usage(10, 5), 1, 2))
FAILED = e.MessageMetadata(e.FailureMetadata(TASK, "failed", "timeout"))


def finish(status: e.EndStatus = "succeeded", output: str = "", reason: e.FinishReason = "stop") -> e.Finish:
    return e.Finish(reason, e.FinishMetadata(TASK, status, output, e.Usage(10, 5), "t0", "t1"))


def attempt(epoch: int) -> e.DataAttempt:
    return e.DataAttempt(e.AttemptData(Epoch(epoch)))


def say(text: str, part: str = "t1") -> list[e.Chunk]:
    return [e.TextStart(PartId(part)), e.TextDelta(PartId(part), text), e.TextEnd(PartId(part))]


def think(text: str, part: str = "r1") -> list[e.Chunk]:
    return [e.ReasoningStart(PartId(part)), e.ReasoningDelta(PartId(part), text), e.ReasoningEnd(PartId(part))]


def folded(*chunks: e.Chunk | e.Unknown | Sequence[e.Chunk]) -> LogFold:
    fold = LogFold()
    for chunk in chunks:
        for one in chunk if isinstance(chunk, Sequence) else [chunk]:
            fold.apply(one)
    return fold


def text(text: str, state: str = "done") -> dict[str, Any]:
    return {"type": "text", "text": text, "state": state}


STEP = {"type": "step-start"}


class TestMessages:
    def test_a_plain_turn(self) -> None:
        fold = folded(
            START, attempt(1), e.StartStep(), say("Hello 世!"), CALL, e.FinishStep(), finish(output="Hello 世!")
        )
        assert fold.message_parts() == [STEP, text("Hello 世!")]
        assert (fold.status, fold.output(), fold.usage, fold.epoch) == ("succeeded", "Hello 世!", e.Usage(10, 5), 1)

    def test_reasoning_and_two_tools_at_once(self) -> None:
        fold = folded(
            START,
            e.StartStep(),
            think("I should look."),
            [e.ToolInputStart("c1", "recall"), e.ToolInputDelta("c1", "{}"), e.ToolInputAvailable("c1", "recall", {})],
            [e.ToolInputStart("c2", "fetch"), e.ToolInputAvailable("c2", "fetch", {"url": "u"})],
            CALL,
            [e.ToolOutputError("c2", "no"), e.ToolOutputAvailable("c1", [])],
            e.FinishStep(),
            e.StartStep(),
            say("Found it."),
            CALL,
            e.FinishStep(),
            finish(),
        )
        assert fold.message_parts() == [
            STEP,
            {"type": "reasoning", "text": "I should look.", "state": "done"},
            {
                "type": "tool-recall",
                "toolCallId": "c1",
                "providerExecuted": True,
                "state": "output-available",
                "input": {},
                "output": [],
            },
            {
                "type": "tool-fetch",
                "toolCallId": "c2",
                "providerExecuted": True,
                "state": "output-error",
                "input": {"url": "u"},
                "errorText": "no",
            },
            STEP,
            text("Found it."),
        ]
        assert fold.output() == "Found it.", "the answer is the text of the last step"
        assert fold.usage == e.Usage(20, 10)

    def test_a_step_that_was_reset_is_forgotten_and_the_one_before_is_not(self) -> None:
        fold = folded(
            START,
            attempt(1),
            [e.StartStep(), *say("First."), CALL, e.FinishStep()],
            [e.StartStep(), e.TextStart(PartId("t2")), e.TextDelta(PartId("t2"), "Half an ans")],
            [attempt(2), e.ResetStep(), *say("Whole.", "t2"), CALL, e.FinishStep()],
            finish(),
        )
        assert fold.message_parts() == [STEP, text("First."), STEP, text("Whole.")]
        assert fold.epoch == 2

    def test_what_is_open_shows_as_it_stands(self) -> None:
        fold = folded(START, e.StartStep(), [e.TextStart(PartId("t1")), e.TextDelta(PartId("t1"), "Hal")])
        assert fold.message_parts() == [STEP, text("Hal", "streaming")]
        fold.apply(e.TextDelta(PartId("t1"), "f"))
        assert (fold.message_parts(), fold.output()) == ([STEP, text("Half", "streaming")], "Half")
        assert fold.open_texts == [e.TextEnd(PartId("t1"))]
        assert fold.status == "running"

    def test_an_operation_and_its_approval_update_in_place(self) -> None:
        pending = e.OperationData("pending", "write", None)
        fold = folded(
            START,
            e.ToolInputAvailable("c1", "write", {"path": "a"}),
            e.ToolApprovalRequest("op_1", "c1"),
            e.DataOperation("op_1", pending),
            attempt(3),
            e.ToolApprovalResponse("op_1", approved=True, reason="fine"),
            e.DataOperation("op_1", e.OperationData("succeeded", "write", None, outcome="ok")),
            e.ToolOutputAvailable("c1", {"written": 3}),
            [e.StartStep(), *say("Written."), e.FinishStep()],
            finish(),
        )
        tool, operation, *_ = fold.message_parts()
        assert (tool["state"], tool["approval"]["approved"], tool["output"]) == (
            "output-available",
            True,
            {"written": 3},
        )
        assert operation["data"] == {"status": "succeeded", "toolName": "write", "deadline": None, "outcome": "ok"}

    def test_a_steering_message_is_no_part_of_the_answer(self) -> None:
        promoted = e.SteeringMessage(MessageId("u2"), (e.TextPart("Texas."),))
        fold = folded(START, [e.StartStep(), e.FinishStep()], promoted, [e.StartStep(), *say("Texas then.")])
        assert [(each.message.id, each.place) for each in fold.promoted] == [("u2", 1)]
        assert fold.message_parts() == [STEP, STEP, text("Texas then.")]

    def test_types_of_another_version_change_nothing(self) -> None:
        fold = folded(START, e.Unknown("data-new", b"{}"), e.StartStep(), say("a"))
        assert fold.message_parts() == [STEP, text("a")]


class TestEnds:
    def test_an_error_in_mid_text(self) -> None:
        fold = folded(
            START, e.StartStep(), say("Half"), e.FinishStep(), FAILED, e.Error("[code:timeout] x"), finish("failed")
        )
        assert (fold.status, fold.produced_output) == ("failed", True)

    def test_a_bounce_said_nothing(self) -> None:
        assert not folded(START, attempt(1), e.StartStep(), attempt(2), e.ResetStep()).produced_output

    def test_what_was_said_and_reset_was_said(self) -> None:
        assert folded(START, e.StartStep(), say("a"), e.ResetStep()).produced_output

    def test_a_cancel(self) -> None:
        assert folded(START, e.Abort("by owner"), finish("cancelled")).status == "cancelled"


ASKED = e.ToolInputAvailable("c1", "write", {})
BOUNCE = e.DataBounceBack(e.BounceBackData("Hi", "x", "timeout", SESSION, MessageId("u1")))


@pytest.mark.parametrize(
    "chunks",
    [
        # a model call that failed, or whose end a store lost
        [START, e.StartStep(), *say("a"), e.FinishStep(), finish()],
        [START, e.StartStep(), e.FinishStep(), e.StartStep(), *say("a"), CALL, e.FinishStep(), finish()],
        [START, finish()],
        [START, FAILED, e.Error("x"), finish("failed")],
        [START, FAILED, FAILED, e.Error("x"), finish("failed")],
        [START, FAILED, attempt(2), e.StartStep(), *say("a"), CALL, e.FinishStep(), finish()],
        [START, e.StartStep(), BOUNCE, e.FinishStep(), BOUNCE, FAILED, e.Error("x"), finish("failed")],
        # calls without a result: what they began goes on elsewhere, or the turn ended before it
        [START, e.StartStep(), ASKED, CALL, e.FinishStep(), finish()],
        [START, e.StartStep(), e.ToolInputStart("c1", "write"), e.FinishStep(), FAILED, e.Error("x"), finish("failed")],
        [START, e.StartStep(), ASKED, CALL, e.ToolOutputAvailable("c1", 1, preliminary=True), e.FinishStep(), finish()],
        # results
        [
            START,
            ASKED,
            *[e.ToolOutputAvailable("c1", n, preliminary=True) for n in range(2)],
            e.ToolOutputAvailable("c1", 3),
        ],
        [START, ASKED, e.ToolOutputAvailable("c1", 1, preliminary=True), e.ToolOutputError("c1", "no")],
        [START, e.ToolInputError("c1", "write", {}, "no"), e.ToolOutputError("c1", "no")],
        [START, ASKED, e.ToolApprovalRequest("op", "c1"), e.ToolOutputError("c1", "nobody answered")],
        [START, ASKED, e.ToolApprovalRequest("op", "c1"), e.ToolOutputDenied("c1")],
        # a step that is done again states its calls again
        [START, e.StartStep(), ASKED, e.ResetStep(), ASKED, CALL, e.ToolOutputAvailable("c1", 1), e.FinishStep()],
        [START, e.StartStep(), e.TextStart(PartId("t")), e.ResetStep(), *say("a", "t"), CALL, e.FinishStep(), finish()],
    ],
    ids=lambda chunks: " ".join(chunk.type for chunk in chunks),
)
def test_what_a_writer_may_leave_is_followed(chunks: list[e.Chunk]) -> None:
    folded(chunks)


@pytest.mark.parametrize(
    "chunks",
    [
        [e.StartStep()],
        [START, START],
        [START, e.TextDelta(PartId("t"), "a")],
        [START, e.StartStep(), e.TextDelta(PartId("t"), "a")],
        [START, e.StartStep(), e.TextEnd(PartId("t"))],
        [START, e.StartStep(), e.TextStart(PartId("t")), e.TextStart(PartId("t"))],
        [START, e.TextStart(PartId("t"))],
        [START, e.StartStep(), e.StartStep()],
        [START, e.FinishStep()],
        [START, e.StartStep(), e.TextStart(PartId("t")), e.FinishStep()],
        [START, e.ResetStep()],
        [START, e.StartStep(), e.FinishStep(), e.ResetStep()],
        [START, e.StartStep(), CALL, e.ResetStep()],
        [START, e.StartStep(), e.SteeringMessage(MessageId("u"), ())],
        [START, e.ToolOutputAvailable("c1", 1)],
        [START, e.ToolApprovalResponse("op", approved=True)],
        [START, e.StartStep(), e.Error("x")],
        [START, e.Error("x"), e.StartStep()],
        [START, e.Abort("x"), e.Error("x")],
        [START, e.StartStep(), finish()],
        [START, finish(), e.StartStep()],
        [START, finish(), finish()],
        # a model call and its end
        [START, CALL],
        [START, e.StartStep(), CALL, CALL],
        [START, e.StartStep(), e.TextStart(PartId("t")), CALL],
        [START, e.StartStep(), CALL, e.TextStart(PartId("t"))],
        [START, e.StartStep(), CALL, e.ReasoningStart(PartId("t"))],
        [START, e.StartStep(), CALL, ASKED],
        [START, e.StartStep(), e.FinishStep(), CALL],
        # a tool and its result
        [START, e.ToolInputDelta("c1", "x")],
        [START, ASKED, e.ToolInputDelta("c1", "x")],
        [START, ASKED, ASKED],
        [START, ASKED, e.ToolInputStart("c1", "write")],
        [START, e.ToolInputStart("c1", "write"), e.ToolInputStart("c1", "write")],
        [START, ASKED, e.ToolOutputAvailable("c1", 1), e.ToolOutputAvailable("c1", 2)],
        [START, ASKED, e.ToolOutputAvailable("c1", 1), e.ToolOutputAvailable("c1", 2, preliminary=True)],
        [START, ASKED, e.ToolOutputError("c1", "no"), e.ToolOutputDenied("c1")],
        [START, ASKED, e.ToolOutputAvailable("c1", 1), e.ToolApprovalRequest("op", "c1")],
        [START, ASKED, e.ToolApprovalRequest("op", "c1"), e.ToolApprovalRequest("op", "c1")],
        [START, ASKED, e.ToolApprovalRequest("op", "c1"), e.ToolOutputAvailable("c1", 1)],
        [START, ASKED, e.ToolApprovalRequest("op", "c1"), *[e.ToolApprovalResponse("op", approved=True)] * 2],
        # an end
        [START, finish("failed")],
        [START, finish("cancelled")],
        [START, e.Error("x")],
        [START, FAILED, attempt(2), e.Error("x")],
        [START, FAILED, e.Error("x"), finish()],
        [START, FAILED, e.Error("x"), finish("cancelled")],
        [START, e.Abort("x"), finish()],
        [START, e.Abort("x"), finish("failed")],
        [START, e.StartStep(), *say("a"), BOUNCE],
    ],
    ids=lambda chunks: " ".join(chunk.type for chunk in chunks),
)
def test_pitfall_71_what_cannot_stand_there_is_refused(chunks: list[e.Chunk]) -> None:
    with pytest.raises(BrokenLog):
        folded(chunks)
