"""What an operation's own log tells of it, in its order: what is there already is not told again."""

from typing import Final

import orjson

from service.agent.recorder import Recorder
from service.agent.tools import Output, capped
from service.model import events as e
from service.model.encoding import rfc3339
from service.model.failures import coded
from service.model.operation import Cancelled, Failed, Operation, Outcome, Succeeded, plain_outcome
from service.model.task import Task

MAX_OUTCOME_CHARACTERS: Final = 2000
"""Of a result beside the status of an operation; the tool's output has as much of it as fits an event."""


async def tell_beginning(recorder: Recorder, task: Task, operation: Operation) -> None:
    """The call stated again, the question, if a person is asked, and that the operation is pending."""
    fold = recorder.fold
    if fold.message_id is None:
        await recorder.put(e.Start(task.answer_id, e.StartMetadata(task.id, task.session_id)))
    call = fold.call(operation.call_id)
    if call is None:
        await recorder.put(e.ToolInputAvailable(operation.call_id, operation.tool, operation.arguments))
    if operation.executor == "person" and "approval" not in (fold.call(operation.call_id) or {}):
        await recorder.put(e.ToolApprovalRequest(operation.id, operation.call_id))
    if fold.operation(operation.id) is None:
        await recorder.put(operation_data(operation, "pending"))


async def tell_progress(recorder: Recorder, operation: Operation) -> None:
    """The latest progress, where it is another one than was told."""
    told = recorder.fold.operation(operation.id)
    if operation.progress is not None and (told is None or told["data"].get("progress") != operation.progress):
        await recorder.put(operation_data(operation, "pending"))


async def tell_end(recorder: Recorder, operation: Operation, outcome: Outcome) -> None:
    """A person's answer, and how the operation ended; what came of its call stands behind that."""
    fold = recorder.fold
    call, told = fold.call(operation.call_id) or {}, fold.operation(operation.id) or {"data": {}}
    if operation.executor == "person" and call.get("state") == "approval-requested":
        reason = outcome.reason if isinstance(outcome, Cancelled) else None
        await recorder.put(e.ToolApprovalResponse(operation.id, isinstance(outcome, Succeeded), reason))
    if told["data"].get("status") != operation.status:
        await recorder.put(operation_data(operation, operation.status))


async def tell_result(recorder: Recorder, operation: Operation, outcome: Outcome) -> None:
    """What came of the call, where the log does not have that yet."""
    if has_result(recorder, operation):
        return
    denied = isinstance(outcome, Cancelled) and operation.executor == "person"
    result = e.ToolOutputDenied(operation.call_id) if denied else result_of(operation.call_id, outcome)
    await recorder.put(result)


def has_result(recorder: Recorder, operation: Operation) -> bool:
    """Whether the log says what came of the call."""
    call = recorder.fold.call(operation.call_id)
    return call is not None and call["state"] in ("output-available", "output-error", "output-denied")


def result_of(call_id: str, outcome: Outcome) -> e.ToolOutputAvailable | e.ToolOutputError:
    """An outcome as the result of the call that began the operation: of a failure with its details, on a line below."""
    match outcome:
        case Succeeded(result):
            return available(call_id, capped(result))
        case Failed(error_type, message, details):
            said = message if details is None else f"{message}\n{orjson.dumps(details).decode()}"
            return e.ToolOutputError(call_id, coded(error_type, said))
        case Cancelled(reason):
            said = "Cancelled." if reason is None else f"Cancelled: {reason}"
            return e.ToolOutputError(call_id, coded("cancelled", said))


def available(call_id: str, output: Output) -> e.ToolOutputAvailable:
    """A tool's output as an event."""
    return e.ToolOutputAvailable(call_id, output.value, truncated=True if output.is_truncated else None)


def operation_data(operation: Operation, status: e.OperationStatus) -> e.DataOperation:
    """How an operation stands, or stood."""
    deadline = None if operation.deadline is None else rfc3339(operation.deadline)
    told = e.OperationData(status, operation.tool, deadline, operation.progress, _short(operation, status))
    return e.DataOperation(operation.id, told)


def _short(operation: Operation, status: e.OperationStatus) -> e.Json:
    match operation.outcome if status != "pending" else None:
        case None:
            return None
        case Succeeded(result):
            text = result if isinstance(result, str) else orjson.dumps(result).decode()
            is_short = len(text) <= MAX_OUTCOME_CHARACTERS
            return result if is_short else f"{text[:MAX_OUTCOME_CHARACTERS]}…"
        case outcome:
            return plain_outcome(outcome)
