"""What may be posted to operations, and what is answered of them."""

import re
from collections.abc import Sequence
from typing import Annotated, Any, Final, assert_never

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from service.http import answers
from service.http.bodies import Body, Text, rfc3339, stream_path
from service.model.errors import InvalidInput, NotFound, OperationEnded
from service.model.ids import OperationId, TaskId
from service.model.intake import LETTER_ID, DeadLetter, DeadReason
from service.model.nesting import MAX_NESTING, is_too_deep
from service.model.operation import (
    Accepted,
    Approval,
    Conflicting,
    Disposition,
    Duplicate,
    Failed,
    FollowUp,
    KeptDelivery,
    Noted,
    Operation,
    PersonsAnswer,
    Receipt,
    Refused,
    Reply,
    Unknown,
    plain_outcome,
)

MAX_REASON_CHARACTERS: Final = 2000


class CancelOperation(Body):
    """A cancellation has nothing to say."""


def _letter_id(text: str) -> str:
    if not re.fullmatch(LETTER_ID, text):
        raise ValueError("This is no dead letter's id, which has 16 hexadecimal digits.")
    return text


class RedriveOperation(Body):
    """There is nothing to say but that."""


class RedriveLetters(Body):
    """Which dead letters: one by its id, those of a reason, or all."""

    model_config = ConfigDict(
        json_schema_extra={
            "not": {
                "anyOf": [
                    {"required": ["id", "reason"]},
                    {"required": ["id"], "properties": {"id": {"const": None}}},
                    {"required": ["reason"], "properties": {"reason": {"const": None}}},
                ]
            }
        }
    )

    id: Annotated[str, AfterValidator(_letter_id), Field(json_schema_extra={"pattern": LETTER_ID})] | None = None
    reason: DeadReason | None = None

    @model_validator(mode="after")
    def _says_one_thing(self) -> "RedriveLetters":
        if len(self.model_fields_set) > 1 or None in (getattr(self, name) for name in self.model_fields_set):
            raise ValueError("Give an id or a reason, or neither for all.")
        return self


def _shallow(value: object) -> object:
    if is_too_deep(value):
        raise ValueError(f"This has {MAX_NESTING} levels at most.")
    return value


class AnswerOperation(Body):
    """A person's yes or no to what is to be done, or what they answer to a question: any JSON."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [
                {
                    "required": ["approved"],
                    "properties": {"approved": {"const": True}, "reason": False, "answer": False},
                },
                {"required": ["approved"], "properties": {"approved": {"const": False}, "answer": False}},
                {"required": ["answer"], "properties": {"approved": False, "reason": False}},
            ]
        }
    )

    approved: bool | None = None
    reason: Annotated[Text, Field(max_length=MAX_REASON_CHARACTERS)] | None = None
    answer: Annotated[Any, AfterValidator(_shallow)] = None

    @model_validator(mode="after")
    def _says_one_thing(self) -> "AnswerOperation":
        said = self.model_fields_set
        if ("answer" in said) == ("approved" in said) or ("approved" in said and self.approved is None):
            raise ValueError("Give approved, true or false, or an answer; one of the two.")
        if "reason" in said and self.approved is not False:
            raise ValueError("Only a no has a reason.")
        return self

    def said(self) -> PersonsAnswer:
        """As the house knows it."""
        return Reply(self.answer) if self.approved is None else Approval(self.approved, self.reason)


def listed_body(operation: Operation) -> answers.ListedOperation:
    """An operation as lists show it."""
    outcome = operation.outcome
    return {
        "id": operation.id,
        "session_id": operation.session_id,
        "owner": operation.owner,
        "task_id": operation.task_id,
        "turn_id": operation.turn_id,
        "call_id": operation.call_id,
        "tool": operation.tool,
        "executor": operation.executor,
        "status": operation.status,
        "error_type": outcome.error_type if isinstance(outcome, Failed) else None,
        "created_at": rfc3339(operation.created_at),
        "deadline": rfc3339(operation.deadline),
        "ended_at": rfc3339(operation.ended_at),
        "progress": operation.progress,
        "has_follow_up": operation.has_follow_up,
        "delivered": operation.deliveries,
        "stream": stream_path(operation.task_id),
    }


def whole_body(operation: Operation) -> answers.WholeOperation:
    """An operation as it stands."""
    return {
        **listed_body(operation),
        "arguments": operation.arguments,
        "outcome": None if operation.outcome is None else plain_outcome(operation.outcome),
    }


def operation_body(
    operation: Operation, deliveries: Sequence[KeptDelivery], follow_ups: Sequence[FollowUp]
) -> answers.Operation:
    """An operation, what came about its end, and what goes on with that."""
    return {
        **whole_body(operation),
        "deliveries": [_delivery_body(each) for each in deliveries],
        "follow_ups": [_follow_up_body(each) for each in follow_ups],
    }


def _follow_up_body(follow_up: FollowUp) -> answers.FollowUp:
    return {
        "task_id": follow_up.task_id,
        "status": follow_up.status,
        "error_type": follow_up.error_type,
        "failed_tries": follow_up.failed_tries,
        "due_at": rfc3339(follow_up.due_at),
        "stream": stream_path(follow_up.task_id),
    }


def _delivery_body(kept: KeptDelivery) -> answers.Delivery:
    return {
        "id": kept.id,
        "at": rfc3339(kept.at),
        "door": kept.delivery.door,
        "by": kept.delivery.by,
        "delivery_id": kept.delivery.id,
        "disposition": kept.disposition,
        "status": kept.status,
        "outcome": kept.outcome,
        "outcome_bytes": kept.outcome_bytes,
        "times": kept.times,
    }


def redriven_body(operation_id: OperationId, task_id: TaskId) -> answers.Redriven:
    """What goes on with an operation."""
    return {"operation_id": operation_id, "task_id": task_id, "stream": stream_path(task_id)}


def letter_body(letter: DeadLetter) -> answers.DeadLetter:
    """A dead letter, with as much of its body as is shown."""
    return {
        "id": letter.id,
        "reason": letter.reason,
        "detail": letter.detail,
        "died_at": rfc3339(letter.died_at),
        "message_id": letter.message_id,
        "app_id": letter.app_id,
        "size": letter.size,
        "body": letter.body.decode(errors="replace"),
    }


def taken_body(became: Disposition | Noted) -> answers.Receipt | answers.Noted:
    """What a message about an operation is answered with. Raises NotFound, OperationEnded, InvalidInput."""
    match became:
        case Accepted(receipt):
            return _receipt_body(receipt)
        case Duplicate(receipt):
            return {**_receipt_body(receipt), "duplicate": True}
        case Noted(operation_id):
            return {"status": "pending", "operation_id": operation_id}
        case Unknown():
            raise NotFound
        case Conflicting():
            raise OperationEnded
        case Refused(reason):
            raise InvalidInput(reason)
        case other:
            assert_never(other)


def _receipt_body(receipt: Receipt) -> answers.Receipt:
    return {
        "status": receipt.status,
        "operation_id": receipt.operation_id,
        "task_id": receipt.task_id,
        "completion_id": receipt.completion_id,
    }
