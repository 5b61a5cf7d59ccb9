"""The vocabulary on the wire."""

import json
import math
import traceback
from dataclasses import fields
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.model import events as e
from service.model.encoding import (
    MAX_EVENT_BYTES,
    BrokenEvent,
    EventTooLarge,
    UnencodableEvent,
    decode,
    encode,
    frames,
    joined,
)
from service.model.ids import Epoch, MessageId, PartId, SessionId, TaskId

TASK, SESSION, MESSAGE, PART = TaskId("task_1"), SessionId("ses_1"), MessageId("m1"), PartId("p1")
USAGE = e.Usage(10, 5)
PARTS: tuple[e.InputPart, ...] = (e.TextPart("hi"), e.FilePart("image/png", "data:image/png;base64,AA=="))

# Each chunk with everything set, and the JSON that readers of the stream were seen to accept.
WIRE: list[tuple[e.Chunk, dict[str, Any]]] = [
    (
        e.Start(MESSAGE, e.StartMetadata(TASK, SESSION)),
        {"type": "start", "messageId": "m1", "messageMetadata": {"taskId": "task_1", "sessionId": "ses_1"}},
    ),
    (e.StartStep(), {"type": "start-step"}),
    (e.FinishStep(), {"type": "finish-step"}),
    (e.ResetStep(), {"type": "reset-step"}),
    (e.TextStart(PART), {"type": "text-start", "id": "p1"}),
    (e.TextDelta(PART, "a"), {"type": "text-delta", "id": "p1", "delta": "a"}),
    (e.TextEnd(PART), {"type": "text-end", "id": "p1"}),
    (e.ReasoningStart(PART), {"type": "reasoning-start", "id": "p1"}),
    (e.ReasoningDelta(PART, "a"), {"type": "reasoning-delta", "id": "p1", "delta": "a"}),
    (e.ReasoningEnd(PART), {"type": "reasoning-end", "id": "p1"}),
    (
        e.ToolInputStart("c1", "recall"),
        {"type": "tool-input-start", "toolCallId": "c1", "toolName": "recall", "providerExecuted": True},
    ),
    (
        e.ToolInputDelta("c1", '{"q"'),
        {"type": "tool-input-delta", "toolCallId": "c1", "inputTextDelta": '{"q"'},
    ),
    (
        e.ToolInputAvailable("c1", "recall", None),
        {
            "type": "tool-input-available",
            "toolCallId": "c1",
            "toolName": "recall",
            "input": None,
            "providerExecuted": True,
        },
    ),
    (
        e.ToolInputError("c1", "recall", {"q": 1}, "bad"),
        {
            "type": "tool-input-error",
            "toolCallId": "c1",
            "toolName": "recall",
            "input": {"q": 1},
            "errorText": "bad",
            "providerExecuted": True,
        },
    ),
    (
        e.ToolOutputAvailable("c1", None),
        {"type": "tool-output-available", "toolCallId": "c1", "output": None, "providerExecuted": True},
    ),
    (
        e.ToolOutputAvailable("c1", {"a": None}, preliminary=True, truncated=True),
        {
            "type": "tool-output-available",
            "toolCallId": "c1",
            "output": {"a": None},
            "preliminary": True,
            "truncated": True,
            "providerExecuted": True,
        },
    ),
    (
        e.ToolOutputError("c1", "no"),
        {"type": "tool-output-error", "toolCallId": "c1", "errorText": "no", "providerExecuted": True},
    ),
    (e.ToolOutputDenied("c1"), {"type": "tool-output-denied", "toolCallId": "c1"}),
    (
        e.ToolApprovalRequest("op_1", "c1"),
        {"type": "tool-approval-request", "approvalId": "op_1", "toolCallId": "c1"},
    ),
    (
        e.ToolApprovalResponse("op_1", approved=False),
        {"type": "tool-approval-response", "approvalId": "op_1", "approved": False},
    ),
    (
        e.ToolApprovalResponse("op_1", approved=True, reason="yes"),
        {"type": "tool-approval-response", "approvalId": "op_1", "approved": True, "reason": "yes"},
    ),
    (
        e.SteeringMessage(MESSAGE, PARTS),
        {
            "type": "steering-message",
            "id": "m1",
            "parts": [
                {"type": "text", "text": "hi"},
                {"type": "file", "mediaType": "image/png", "url": "data:image/png;base64,AA=="},
            ],
        },
    ),
    (
        e.MessageMetadata(e.CallMetadata("stop", USAGE, 12, 34)),
        {
            "type": "message-metadata",
            "messageMetadata": {
                "finishReason": "stop",
                "usage": {"inputTokens": 10, "outputTokens": 5},
                "firstOutputMs": 12,
                "durationMs": 34,
            },
        },
    ),
    (
        e.MessageMetadata(e.FailureMetadata(TASK, "failed", "timeout")),
        {
            "type": "message-metadata",
            "messageMetadata": {"taskId": "task_1", "status": "failed", "errorType": "timeout"},
        },
    ),
    (
        e.DataOperation("op_1", e.OperationData("pending", "render", None)),
        {
            "type": "data-operation",
            "id": "op_1",
            "data": {"status": "pending", "toolName": "render", "deadline": None},
        },
    ),
    (
        e.DataOperation("op_1", e.OperationData("succeeded", "render", "2026-11-21T09:00:00Z", 0.5, {"frames": 3})),
        {
            "type": "data-operation",
            "id": "op_1",
            "data": {
                "status": "succeeded",
                "toolName": "render",
                "deadline": "2026-11-21T09:00:00Z",
                "progress": 0.5,
                "outcome": {"frames": 3},
            },
        },
    ),
    (
        e.DataInput(e.InputData(MESSAGE, (e.TextPart("hi"),))),
        {
            "type": "data-input",
            "data": {"messageId": "m1", "parts": [{"type": "text", "text": "hi"}]},
            "transient": True,
        },
    ),
    (
        e.DataAttempt(e.AttemptData(Epoch(2))),
        {"type": "data-attempt", "data": {"epoch": 2}, "transient": True},
    ),
    (
        e.DataRetry(e.RetryData(2, 1.5, "rate_limit")),
        {
            "type": "data-retry",
            "data": {"attempt": 2, "waitSeconds": 1.5, "errorType": "rate_limit"},
            "transient": True,
        },
    ),
    (
        e.DataCompaction(e.CompactionData(9000, 3000)),
        {"type": "data-compaction", "data": {"tokensBefore": 9000, "tokensAfter": 3000}, "transient": True},
    ),
    (
        e.DataSession(e.SessionData(title="A title")),
        {"type": "data-session", "data": {"title": "A title"}, "transient": True},
    ),
    (
        e.DataIterationLimit(e.IterationLimitData(25)),
        {"type": "data-iteration-limit", "data": {"limit": 25}, "transient": True},
    ),
    (
        e.DataBounceBack(e.BounceBackData("hi", "No key", "authentication_error", SESSION, MESSAGE)),
        {
            "type": "data-bounce-back",
            "data": {
                "content": "hi",
                "error": "No key",
                "errorType": "authentication_error",
                "sessionId": "ses_1",
                "messageId": "m1",
            },
            "transient": True,
        },
    ),
    (
        e.DataAuthenticationRequired(e.AuthenticationData("demo")),
        {"type": "data-authentication-required", "data": {"provider": "demo"}, "transient": True},
    ),
    (e.Error("[code:timeout] Too long."), {"type": "error", "errorText": "[code:timeout] Too long."}),
    (e.Abort("cancelled by owner"), {"type": "abort", "reason": "cancelled by owner"}),
    (
        e.Finish("stop", e.FinishMetadata(TASK, "succeeded", "", USAGE, "t0", "t1")),
        {
            "type": "finish",
            "finishReason": "stop",
            "messageMetadata": {
                "taskId": "task_1",
                "status": "succeeded",
                "output": "",
                "usage": {"inputTokens": 10, "outputTokens": 5},
                "startedAt": "t0",
                "finishedAt": "t1",
            },
        },
    ),
]


@pytest.mark.parametrize(("chunk", "wire"), WIRE, ids=lambda value: getattr(value, "type", ""))
def test_each_chunk_on_the_wire_and_back(chunk: e.Chunk, wire: dict[str, Any]) -> None:
    assert json.loads(encode(chunk)) == wire
    assert decode(encode(chunk)) == chunk


def test_the_list_above_is_the_whole_vocabulary() -> None:
    assert {type(chunk) for chunk, _ in WIRE} == set(get_args(e.Chunk))


@pytest.mark.parametrize("kind", get_args(e.Chunk), ids=lambda kind: kind.__name__)
def test_pitfall_73_only_what_is_optional_can_be_left_out(kind: type) -> None:
    """`input`, `output`, `data` and `messageMetadata` have no default, so nobody can forget them."""
    required = {"input", "output", "data", "message_metadata"}
    for one in fields(kind):
        if one.name in required:
            assert one.default is not None, one.name


def test_the_type_comes_first_and_it_is_one_line() -> None:
    data = encode(e.TextDelta(PART, 'a\r\nb\u2028"\\'))
    assert data.startswith(b'{"type":"text-delta",')
    assert b"\n" not in data
    assert b"\r" not in data


def test_frames_say_position_and_json() -> None:
    assert frames([(b"1-1", b"{}"), (b"2-2", b"[]")]) == b"id: 1-1\ndata: {}\n\nid: 2-2\ndata: []\n\n"


class TestWhatCannotBeSaid:
    def test_an_event_of_the_largest_size(self) -> None:
        room = MAX_EVENT_BYTES - len(encode(e.TextDelta(PART, "")))
        assert len(encode(e.TextDelta(PART, "x" * room))) == MAX_EVENT_BYTES
        with pytest.raises(EventTooLarge):
            encode(e.TextDelta(PART, "x" * (room + 1)))

    @pytest.mark.parametrize(
        "value", ["\ud800", {"a": "\udfff"}, 2**70, pytest.param(object(), id="an object")], ids=repr
    )
    def test_what_json_has_no_word_for(self, value: Any) -> None:
        with pytest.raises(UnencodableEvent):
            encode(e.ToolOutputAvailable("c1", value))

    def test_not_a_number_is_said_as_null(self) -> None:
        assert json.loads(encode(e.ToolOutputAvailable("c1", math.nan)))["output"] is None


class TestReadingBack:
    def test_a_type_of_another_version_is_passed_on(self) -> None:
        data = b'{"type":"data-from-the-future","data":{"a":[1]}}'
        assert decode(data) == e.Unknown("data-from-the-future", data)

    def test_a_field_of_another_version_is_passed_over(self) -> None:
        assert decode(b'{"type":"text-start","id":"p1","color":"red"}') == e.TextStart(PART)

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"{",
            b"[]",
            b"1",
            b"null",
            b"{}",
            b'{"type":"text-delta","id":"p1"}',
            b'{"type":"finish"}',
            b'{"type":"text-delta","id":1,"delta":"a"}',
            b'{"type":"tool-output-available","toolCallId":"c1"}',
            b"\xff",
        ],
    )
    def test_what_is_broken_is_called_so(self, data: bytes) -> None:
        with pytest.raises(BrokenEvent):
            decode(data)

    def test_what_is_broken_is_not_repeated(self) -> None:
        """A validation that fails names the field; its value may be a message."""
        for data in (b'{"type":"text-delta","delta":"hush"}', b'{"type":"text-delta","id":["hush"],"delta":1}'):
            with pytest.raises(BrokenEvent) as broken:
                decode(data)
            assert "hush" not in "".join(traceback.format_exception(broken.value))


code_points = st.integers(0, 0x7F) | st.integers(0, 0xD7FF) | st.integers(0xE000, 0x10FFFF)
texts = st.text(code_points.map(chr), max_size=50)
deltas = st.builds(
    lambda kind, part, text: kind(PartId(part), text),
    st.sampled_from([e.TextDelta, e.ReasoningDelta]),
    st.sampled_from(["p1", "p2", '","delta":"']),
    texts | st.sampled_from(['","delta":"', '"}', "\\", "\\\\", '\\"']),
)


class TestJoining:
    @given(deltas, deltas)
    def test_deltas_of_one_part_become_one_and_no_others_do(self, first: Any, second: Any) -> None:
        both = joined(encode(first), encode(second))
        if (type(first), first.id) == (type(second), second.id):
            assert both is not None
            assert decode(both) == type(first)(first.id, first.delta + second.delta)
            assert both == encode(type(first)(first.id, first.delta + second.delta))
        else:
            assert both is None

    def test_nothing_else_is_joined(self) -> None:
        for chunk, _ in WIRE:
            if not isinstance(chunk, e.TextDelta | e.ReasoningDelta):
                assert joined(encode(chunk), encode(chunk)) is None, chunk

    def test_what_would_grow_too_long_is_left_apart(self) -> None:
        half = encode(e.TextDelta(PART, "x" * (MAX_EVENT_BYTES // 2)))
        assert joined(half, half) is None
