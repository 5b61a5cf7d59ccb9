"""What a log says: the state of its task and the assistant's message, derived from the events alone.

The same fold serves the worker that goes on from a log, the message that is stored, and whoever checks a log: folding
is also the proof that the events stand in an order that a reader of the stream can follow. `start` is first. A delta or
an end has its start. A model call is inside a step, ends once and behind its parts, and then is not done again. A tool
is asked for once, before its one result; where a person is asked, it gives none before the answer. An `error` has its
metadata directly before it; behind an `error` or an `abort` there is only a `finish` that says the same, and without
either it has succeeded.

What a failure, or a store that lost its tail, may leave out is not asked for: that the model call of a step ended, that
a tool gave a result, that there is a step at all. Nor is it that an ending begins only once.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Any, Literal

from service.model import events as e
from service.model.encoding import plain
from service.model.errors import PlayheadError
from service.model.ids import Epoch, MessageId, PartId, TaskId

TextKind = Literal["text", "reasoning"]
Part = dict[str, Any]
"""One part of a stored message, in the shape in which the AI SDK's client would rebuild it."""


class BrokenLog(PlayheadError):
    """The events of a log do not stand in an order that means anything."""


@dataclass(slots=True)
class _OpenText:
    """A text or reasoning part that still grows."""

    part: Part
    pieces: list[str] = field(default_factory=list)

    def settle(self) -> None:
        self.part["text"] += "".join(self.pieces)
        self.pieces.clear()


_ToolInput = e.ToolInputStart | e.ToolInputAvailable | e.ToolInputError
_ToolProgress = (
    e.ToolInputDelta
    | e.ToolOutputAvailable
    | e.ToolOutputError
    | e.ToolOutputDenied
    | e.ToolApprovalRequest
    | e.ToolApprovalResponse
)


@dataclass(slots=True)
class _ToolCall:
    """A tool that was asked for."""

    part: Part
    has_result: bool = False

    def takes(self, chunk: _ToolInput | _ToolProgress) -> bool:
        """Whether this may come next."""
        state = str(self.part["state"])
        match chunk:
            case e.ToolInputStart():
                return False
            case e.ToolInputDelta() | e.ToolInputAvailable() | e.ToolInputError():
                return state == "input-streaming"
            case e.ToolApprovalRequest():
                return not self.has_result and "approval" not in self.part
            case e.ToolApprovalResponse():
                return not self.has_result and state == "approval-requested"
            case e.ToolOutputAvailable():
                return not self.has_result and state != "approval-requested"
            case e.ToolOutputError() | e.ToolOutputDenied():
                return not self.has_result


@dataclass(frozen=True, slots=True)
class Promoted:
    """A message that was taken in between two steps, and how many parts of the assistant's message stood before it."""

    message: e.SteeringMessage
    place: int


@dataclass(slots=True)
class LogFold:
    """The fold of a log's events, applied one by one in their order."""

    task_id: TaskId | None = None
    message_id: MessageId | None = None
    input: tuple[e.InputPart, ...] = ()
    """The message that is answered."""
    epoch: Epoch | None = None
    """Of the last attempt that the log tells of."""
    attempts: int = 0
    """How many attempts it tells of."""
    parts: list[Part] = field(default_factory=list)
    step_is_open: bool = False
    model_call_ended: bool = False
    """Whether the open step's model call ended; what it said then counts, whoever goes on."""
    produced_output: bool = False
    """Whether any attempt of the model said anything, a step that was reset included."""
    usage: e.Usage = field(default_factory=lambda: e.Usage(0, 0))
    last_call: e.CallMetadata | None = None
    """How the last model call ended."""
    tail: deque[e.Chunk | e.Unknown] = field(default_factory=lambda: deque(maxlen=8))
    """The newest events: enough to see how much of an ending is there."""
    promoted: list[Promoted] = field(default_factory=list)
    """The messages that were taken in between steps; they are no parts of the assistant's message."""
    finish: e.Finish | None = None
    _step_starts_at: int = 0
    _last_step_starts_at: int = 0
    _texts: dict[tuple[TextKind, str], _OpenText] = field(default_factory=dict)
    _tools: dict[str, _ToolCall] = field(default_factory=dict)
    _operations: dict[str, Part] = field(default_factory=dict)
    _ends_as: e.EndStatus = "succeeded"

    @property
    def status(self) -> Literal["queued", "running", "succeeded", "failed", "cancelled"]:
        """The task's status as far as its log tells it."""
        if self.finish is not None:
            return self.finish.message_metadata.status
        return "running" if self.message_id is not None else "queued"

    @property
    def open_texts(self) -> list[e.TextEnd | e.ReasoningEnd]:
        """The chunks that would close what is open, in the order of opening."""
        return [e.TextEnd(PartId(i)) if kind == "text" else e.ReasoningEnd(PartId(i)) for kind, i in self._texts]

    @property
    def steps(self) -> int:
        """How many steps were begun."""
        return sum(part["type"] == "step-start" for part in self.parts)

    @property
    def finished_parts(self) -> list[Part]:
        """The assistant's message without the step that is open."""
        return self.parts[: self._step_starts_at] if self.step_is_open else self.parts

    @property
    def model_reason(self) -> e.FinishReason:
        """Why the last model call ended."""
        return "stop" if self.last_call is None else self.last_call.finish_reason

    @property
    def last_step_parts(self) -> list[Part]:
        """What the last step has, whether it is open or not."""
        return self.parts[self._last_step_starts_at :]

    @property
    def open_step_calls(self) -> list[Part]:
        """The tool calls of the step that is open, whether they have results or not."""
        if not self.step_is_open:
            return []
        return [part for part in self.parts[self._step_starts_at :] if part["type"].startswith("tool-")]

    def call(self, call_id: str) -> Part | None:
        """The tool call of this id, if it was asked for and counts."""
        call = self._tools.get(call_id)
        return None if call is None else call.part

    def operation(self, operation_id: str) -> Part | None:
        """What was last told of this operation."""
        return self._operations.get(operation_id)

    def has_call(self, call_id: str) -> bool:
        """Whether a tool call of this id was asked for and counts."""
        return call_id in self._tools

    def output(self) -> str:
        """The text of the last step: the answer so far."""
        self.settle()
        return "".join(p["text"] for p in self.parts[self._last_step_starts_at :] if p["type"] == "text")

    def message_parts(self) -> list[Part]:
        """The assistant's message as it stands, without parts that carry nothing."""
        self.settle()
        return [part for part in self.parts if part.get("text") != ""]

    def apply(self, chunk: e.Chunk | e.Unknown) -> None:  # noqa: C901 - one arm a chunk is the clearest form of a fold
        """Take the next event in. Raises BrokenLog where it cannot stand here; the fold is then of no more use."""
        self.tail.append(chunk)
        match chunk:
            case e.TextDelta():
                self._open_text("text", chunk.id).pieces.append(chunk.delta)
            case e.ReasoningDelta():
                self._open_text("reasoning", chunk.id).pieces.append(chunk.delta)
            case _ if self.finish is not None:
                raise BrokenLog(f"{chunk.type} after finish")
            case e.Start():
                self._start(chunk)
            case _ if self.message_id is None:
                raise BrokenLog(f"{chunk.type} before start")
            case e.Finish():
                self._finish(chunk)
            case _ if self._ends_as != "succeeded":
                raise BrokenLog(f"{chunk.type} where only finish may stand")
            case e.StartStep() | e.FinishStep() | e.ResetStep():
                self._step(chunk)
            case e.TextStart():
                self._begin_text("text", chunk.id)
            case e.ReasoningStart():
                self._begin_text("reasoning", chunk.id)
            case e.TextEnd():
                self._end_text("text", chunk.id)
            case e.ReasoningEnd():
                self._end_text("reasoning", chunk.id)
            case e.MessageMetadata(message_metadata=e.CallMetadata() as call):
                self._require(self._model_may_speak and not self._texts, chunk)
                self.model_call_ended, self.usage = True, self.usage.plus(call.usage)
                self.last_call = call
            case e.SteeringMessage():
                self._require(not self.step_is_open, chunk)
                self.promoted.append(Promoted(chunk, len(self.parts)))
            case e.DataInput():
                self.input = chunk.data.parts
            case e.DataAttempt():
                self.epoch, self.attempts = chunk.data.epoch, self.attempts + 1
            case e.DataOperation():
                self._operation(chunk)
            case e.DataBounceBack():
                self._require(not self.produced_output, chunk)
            case e.Error() | e.Abort():
                self._end(chunk)
            case e.ToolInputStart() | e.ToolInputAvailable() | e.ToolInputError():
                self._tool_input(chunk)
            case (
                e.ToolInputDelta()
                | e.ToolOutputAvailable()
                | e.ToolOutputError()
                | e.ToolOutputDenied()
                | e.ToolApprovalRequest()
                | e.ToolApprovalResponse()
            ):
                self._tool(chunk)
            case _:  # transient data, a failure's metadata, and types of another version: no state of ours
                pass

    def _require(self, holds: bool, chunk: e.Chunk) -> None:  # noqa: FBT001 - reads as an assertion
        if not holds:
            raise BrokenLog(f"{chunk.type} cannot stand here")

    def _start(self, chunk: e.Start) -> None:
        self._require(self.message_id is None, chunk)
        self.message_id, self.task_id = chunk.message_id, chunk.message_metadata.task_id

    def _end(self, chunk: e.Error | e.Abort) -> None:
        self._require(not self.step_is_open and not self._texts, chunk)
        match chunk:
            case e.Error():
                before = self.tail[-2]  # there is at least the start
                told = isinstance(before, e.MessageMetadata) and isinstance(before.message_metadata, e.FailureMetadata)
                self._require(told, chunk)
                self._ends_as = "failed"
            case e.Abort():
                self._ends_as = "cancelled"

    def _finish(self, chunk: e.Finish) -> None:
        as_said = chunk.message_metadata.status == self._ends_as
        self._require(as_said and not self.step_is_open and not self._texts, chunk)
        self.finish = chunk

    @property
    def _model_may_speak(self) -> bool:
        return self.step_is_open and not self.model_call_ended

    def _step(self, chunk: e.StartStep | e.FinishStep | e.ResetStep) -> None:
        match chunk:
            case e.StartStep():
                self._require(not self.step_is_open and not self._texts, chunk)
                self.parts.append({"type": "step-start"})
                self.step_is_open, self.model_call_ended = True, False
                self._step_starts_at = self._last_step_starts_at = len(self.parts)
            case e.FinishStep():
                self._require(self.step_is_open and not self._texts, chunk)
                self.step_is_open = False
            case e.ResetStep():
                self._require(self.step_is_open and not self.model_call_ended, chunk)
                dropped = self.parts[self._step_starts_at :]
                del self.parts[self._step_starts_at :]
                self._texts.clear()
                for part in dropped:
                    self._tools.pop(part.get("toolCallId", ""), None)
                    self._operations.pop(part.get("id", ""), None)

    def _begin_text(self, kind: TextKind, part_id: str) -> None:
        if (kind, part_id) in self._texts or not self._model_may_speak:
            raise BrokenLog(f"{kind}-start cannot stand here")
        part: Part = {"type": kind, "text": "", "state": "streaming"}
        self.parts.append(part)
        self._texts[kind, part_id] = _OpenText(part)
        self.produced_output = True

    def _open_text(self, kind: TextKind, part_id: str) -> _OpenText:
        try:
            return self._texts[kind, part_id]
        except KeyError:
            raise BrokenLog(f"{kind} of a part that is not open") from None

    def _end_text(self, kind: TextKind, part_id: str) -> None:
        text = self._open_text(kind, part_id)
        text.settle()
        text.part["state"] = "done"
        del self._texts[kind, part_id]

    def settle(self) -> None:
        """Make one text of the pieces that have come so far, which take more memory; it changes nothing else."""
        for text in self._texts.values():
            text.settle()

    def _tool_input(self, chunk: _ToolInput) -> None:
        call = self._tools.get(chunk.tool_call_id)
        if call is not None:
            self._require(call.takes(chunk), chunk)
        else:
            # Outside a step, an operation's log states the call again that began it.
            self._require(self._model_may_speak or not self.step_is_open, chunk)
            part = {"type": f"tool-{chunk.tool_name}", "toolCallId": chunk.tool_call_id, "providerExecuted": True}
            call = self._tools[chunk.tool_call_id] = _ToolCall(part)
            self.parts.append(part)
            self.produced_output = True
        match chunk:
            case e.ToolInputStart():
                call.part["state"] = "input-streaming"
            case e.ToolInputAvailable():
                call.part.update(state="input-available", input=chunk.input)
            case e.ToolInputError():
                call.part.update(state="output-error", input=chunk.input, errorText=chunk.error_text)

    def _tool(self, chunk: _ToolProgress) -> None:
        if isinstance(chunk, e.ToolApprovalResponse):
            asked = (c for c in self._tools.values() if c.part.get("approval", {}).get("id") == chunk.approval_id)
            call = next(asked, None)
        else:
            call = self._tools.get(chunk.tool_call_id)
        if call is None:
            raise BrokenLog(f"{chunk.type} of a call that is not in the log")
        self._require(call.takes(chunk), chunk)
        part = call.part
        match chunk:
            case e.ToolOutputAvailable():
                call.has_result = not chunk.preliminary
                part.update(state="output-available", output=chunk.output)
                part.pop("preliminary", None)
                if chunk.preliminary:
                    part["preliminary"] = True
            case e.ToolOutputError():
                call.has_result = True
                part.update(state="output-error", errorText=chunk.error_text)
            case e.ToolOutputDenied():
                call.has_result = True
                part["state"] = "output-denied"
            case e.ToolApprovalRequest():
                part.update(state="approval-requested", approval={"id": chunk.approval_id})
            case e.ToolApprovalResponse():
                answer = {"id": chunk.approval_id, "approved": chunk.approved}
                part.update(
                    state="approval-responded", approval=answer | ({"reason": chunk.reason} if chunk.reason else {})
                )

    def _operation(self, chunk: e.DataOperation) -> None:
        part = self._operations.get(chunk.id)
        if part is None:
            part = {"type": "data-operation", "id": chunk.id}
            self._operations[chunk.id] = part
            self.parts.append(part)
        part["data"] = plain(chunk.data)
