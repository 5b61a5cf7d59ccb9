"""The tools that a model may ask for. Whatever is asked has one result; none of it is a failure of the turn."""

import asyncio
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any, Final

import orjson
import structlog
from pydantic import BaseModel, ConfigDict, ValidationError

from service.agent.ports import OperationTool, Tool
from service.model.encoding import plain
from service.model.errors import PlayheadError
from service.model.events import Json
from service.model.generation import ToolDescription
from service.model.ids import SessionId
from service.model.nesting import MAX_NESTING, is_too_deep
from service.operations.asking import reason_of

log = structlog.get_logger()

MAX_INPUT_BYTES: Final = 128 * 1024
"""Of the arguments to one call, as JSON; a call with more is refused."""

MAX_OUTPUT_CHARACTERS: Final = 100_000
MAX_OUTPUT_BYTES: Final = 192 * 1024
"""Of one output, as JSON; of a longer one there are head and tail, as text."""

TOOLS_AT_ONCE: Final = 8
"""Of one step."""

TOO_LARGE: Final = f"The arguments have more than {MAX_INPUT_BYTES} bytes."


class CallRefused(PlayheadError):
    """A call has failed; the text says why, for the model and for people."""

    def __init__(self, error_type: str, reason: str) -> None:
        super().__init__(f"[code:{error_type}] {reason}")


@dataclass(frozen=True, slots=True)
class Output:
    """What a tool gave."""

    value: Json
    is_truncated: bool = False
    """Whether it is only head and tail of what the tool gave, as text, with a line between that says so."""


class Toolbox:
    """Tools by their names. `of_session` makes those that do something else in each session; see `granted`."""

    def __init__(
        self,
        tools: Iterable[Tool[Any]] = (),
        operations: Iterable[OperationTool] = (),
        of_session: Iterable[Callable[[SessionId], Tool[Any]]] = (),
    ) -> None:
        self._tools = {tool.name: tool for tool in tools}
        self._operations = {tool.description.name: tool for tool in operations}
        self._of_session = tuple(of_session)
        own = (
            ToolDescription(tool.name, tool.description, tool.input.model_json_schema())
            for tool in self._tools.values()
        )
        self.described = (*own, *(tool.description for tool in self._operations.values()))
        """What a model is told of them."""

    def granted(self, names: Collection[str] | None, session_id: SessionId) -> "Toolbox":
        """What this session has: those of these names, and those that are always granted; None: all of them."""
        own = (*self._tools.values(), *(make(session_id) for make in self._of_session))
        if names is None:
            return Toolbox(own, self._operations.values())
        return Toolbox(
            (tool for tool in own if tool.is_always_granted or tool.name in names),
            (tool for name, tool in self._operations.items() if name in names),
        )

    def check(self, name: str, value: Json) -> None:
        """Raises CallRefused where there is no such tool, or these are no arguments for it."""
        operation = self._operations.get(name)
        if operation is None:
            self._checked(name, value)
        elif reason := operation.why_not(value):
            raise CallRefused("invalid_arguments", reason)

    def operation(self, name: str) -> OperationTool | None:
        """The tool of this name, where its calls are operations."""
        return self._operations.get(name)

    def needs_approval(self, name: str) -> bool:
        """Whether a person is asked before a call of this tool."""
        tool = self._tools.get(name) or self._operations.get(name)
        return tool is not None and tool.needs_approval

    def is_repeatable(self, name: str) -> bool:
        """Whether a call of this tool may run again; one that there is not never runs."""
        tool = self._tools.get(name)
        return tool is None or tool.is_repeatable

    async def run(self, name: str, value: Json) -> Output:
        """The output, which fits into a log. Raises CallRefused."""
        tool, arguments = self._checked(name, value)
        patience = asyncio.timeout(tool.deadline_seconds)
        try:
            async with patience:
                output = plain(await tool.run(arguments))
            if is_too_deep(output):
                raise CallRefused("output_too_large", f"The tool's output has more than {MAX_NESTING} levels.")
            return capped(output)
        except CallRefused:
            raise
        except Exception as error:
            # The edge of a tool: a mistake in one is a result of its call, and the turn goes on.
            if patience.expired():
                raise CallRefused("timeout", f"The tool took more than {tool.deadline_seconds:g} seconds.") from error
            log.exception("tool_crashed", tool=name)
            raise CallRefused("tool_failed", "The tool failed.") from error

    def _checked(self, name: str, value: Json) -> tuple[Tool[Any], BaseModel]:
        tool = self._tools.get(name)
        if tool is None:
            known = ", ".join((*self._tools, *self._operations)) or "none"
            raise CallRefused("unknown_tool", f"There is no tool of this name. There are: {known}.")
        try:
            return tool, tool.input.model_validate(value)
        except ValidationError as error:
            raise CallRefused("invalid_arguments", reason_of(error)) from error


def capped(output: Json) -> Output:
    """An output as a log and a model may have it. Raises TypeError for what JSON cannot say."""
    encoded = orjson.dumps(output)
    text = output if isinstance(output, str) else encoded.decode()
    if len(encoded) <= MAX_OUTPUT_BYTES and len(text) <= MAX_OUTPUT_CHARACTERS:
        return Output(output)
    half = MAX_OUTPUT_CHARACTERS // 2
    while len(orjson.dumps(cut := _ends_of(text, half))) > MAX_OUTPUT_BYTES:
        half //= 2
    return Output(cut, is_truncated=True)


def _ends_of(text: str, half: int) -> str:
    return f"{text[:half]}\n[{len(text) - 2 * half} characters are left out.]\n{text[-half:]}"


def parsed(arguments: str) -> Json:
    """The arguments that a model gave as text; no text is none. Raises CallRefused."""
    if len(arguments.encode()) > MAX_INPUT_BYTES:
        raise CallRefused("arguments_too_large", TOO_LARGE)
    try:
        value: Json = orjson.loads(arguments) if arguments.strip() else {}
    except orjson.JSONDecodeError as error:
        raise CallRefused("invalid_arguments", "The arguments are no JSON.") from error
    if is_too_deep(value):
        raise CallRefused("invalid_arguments", f"The arguments have more than {MAX_NESTING} levels.")
    if len(orjson.dumps(value)) > MAX_INPUT_BYTES:
        raise CallRefused("arguments_too_large", TOO_LARGE)
    return value


class Thought(BaseModel):
    """What `think` is given."""

    model_config = ConfigDict(extra="forbid", strict=True)

    thought: str


async def _think(thought: Thought) -> Json:
    return "ok"


THINK: Final = Tool(
    "think",
    "A place to reason about what was said and found so far. It changes nothing and finds nothing out.",
    Thought,
    _think,
    is_repeatable=True,
    is_always_granted=True,
)
