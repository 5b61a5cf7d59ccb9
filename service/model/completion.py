"""What external services say of operations: one body, whichever door it comes through."""

from typing import Annotated, Any, Final

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from service.model.errors import InvalidInput
from service.model.failures import message_for
from service.model.nesting import MAX_NESTING, has_more_values, is_too_deep
from service.model.operation import Failed, Outcome, Succeeded

MAX_COMPLETION_BYTES: Final = 1024 * 1024
"""Of a message, as it comes."""

MAX_COMPLETION_VALUES: Final = 50_000
"""So many values a message may have, counted before any is made: more of them would hold everybody up."""

MAX_PROGRESS_BYTES: Final = 16 * 1024
"""Of what progress says, as JSON: it is told in the log, again and again."""

MAX_DETAILS_BYTES: Final = 64 * 1024

MAX_ERROR_CHARACTERS: Final = 2000

_Id = Annotated[str, Field(pattern=r"^[!-~]{1,128}$")]


def _only(*names: str, **fixed: Any) -> dict[str, Any]:
    """JSON schema of a message that says these things, the fixed ones so, and none of the others."""
    others = {"success", "result", "error", "error_type", "details", "progress"} - {*names, *fixed}
    said = {name: {"const": value} for name, value in fixed.items()} | dict.fromkeys(sorted(others), False)
    return {"properties": said, "required": [*fixed] or [*names]}


class CompletionBody(BaseModel):
    """How an operation ended, or how far it is."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        json_schema_extra={
            "oneOf": [
                _only("result", success=True),
                _only("error", "error_type", "details", success=False),
                _only("progress"),
            ]
        },
    )

    operation_id: _Id | None = None
    """Not needed where the address has it; then it must be the same."""
    success: bool | None = None
    result: Any = None
    """Of a success: any JSON, kept as it comes."""
    error: Annotated[str, Field(max_length=MAX_ERROR_CHARACTERS)] | None = None
    """Of a failure: a few words for people."""
    error_type: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")] | None = None
    """Of a failure: its class, for programs."""
    details: Any = None
    """Of a failure: whatever helps to understand it."""
    progress: Any = None
    """Instead of an end: how far it is."""
    task_id: _Id | None = None
    """The operation's own task, where the sender wants that checked."""

    @model_validator(mode="after")
    def _says_one_thing(self) -> "CompletionBody":
        if any(is_too_deep(each) for each in (self.result, self.details, self.progress)):
            raise ValueError(f"there are more than {MAX_NESTING} levels")
        said = self.model_fields_set - {"operation_id", "task_id"}
        if "progress" in said:
            if said != {"progress"}:
                raise ValueError("progress comes alone")
            if len(orjson.dumps(self.progress)) > MAX_PROGRESS_BYTES:
                raise ValueError(f"progress has {MAX_PROGRESS_BYTES} bytes at most")
        elif self.success is None:
            raise ValueError("success or progress is needed")
        elif self.success and said & {"error", "error_type", "details"}:
            raise ValueError("a success has a result, and no error")
        elif not self.success and "result" in said:
            raise ValueError("a failure has an error, and no result")
        if len(orjson.dumps(self.details)) > MAX_DETAILS_BYTES:
            raise ValueError(f"details have {MAX_DETAILS_BYTES} bytes at most")
        return self

    @property
    def is_progress(self) -> bool:
        """Whether it says how far the operation is, and not how it ended."""
        return "progress" in self.model_fields_set

    @property
    def outcome(self) -> Outcome:
        """How the operation ended. What a service did not say of a failure is said for it."""
        if self.success:
            return Succeeded(self.result)
        error_type = self.error_type or "unknown"
        return Failed(error_type, self.error or message_for(error_type), self.details)


def read_completion(data: bytes) -> CompletionBody:
    """Read a message. Raises InvalidInput with one sentence that repeats none of it."""
    if len(data) > MAX_COMPLETION_BYTES:
        raise InvalidInput(f"The message has more than {MAX_COMPLETION_BYTES} bytes.")
    if has_more_values(data, MAX_COMPLETION_VALUES):
        raise InvalidInput(f"The message has more than {MAX_COMPLETION_VALUES} values.")
    try:
        value: Any = orjson.loads(data)
    except orjson.JSONDecodeError:
        raise InvalidInput("The message is no JSON.") from None
    if isinstance(value, dict) and len(value) > len(CompletionBody.model_fields):  # each would be listed
        raise InvalidInput("The message is not a completion. There are more fields than it can have.")
    try:
        return CompletionBody.model_validate(value)
    except ValidationError as error:
        raise InvalidInput(f"The message is not a completion. {_reason(error)}") from None


def _reason(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    place = ".".join(str(part) for part in first["loc"])[:64]
    said = first["msg"].removeprefix("Value error, ")
    return f"{place}: {said}"[:300] if place else said[:300]
