"""The tools that a model may ask for. Whatever is asked has one result; none of it is a failure of the turn."""

from collections.abc import Iterable
from typing import Any, Final

import orjson
import structlog
from pydantic import BaseModel, ConfigDict, ValidationError

from service.agent.ports import Tool
from service.model.encoding import plain
from service.model.errors import PlayheadError
from service.model.events import Json
from service.model.generation import ToolDescription

log = structlog.get_logger()

MAX_INPUT_BYTES: Final = 128 * 1024
"""Of the arguments to one call, as JSON; a call with more is refused."""

MAX_OUTPUT_BYTES: Final = 192 * 1024
"""Of one output, as JSON; more is a failure of the tool."""

MAX_REASON_CHARACTERS: Final = 500

TOO_LARGE: Final = f"The arguments have more than {MAX_INPUT_BYTES} bytes."


class CallRefused(PlayheadError):
    """A call has failed; the text says why, for the model and for people."""

    def __init__(self, error_type: str, reason: str) -> None:
        super().__init__(f"[code:{error_type}] {reason}")


class Toolbox:
    """Tools by their names."""

    def __init__(self, tools: Iterable[Tool[Any]] = ()) -> None:
        self._tools = {tool.name: tool for tool in tools}
        self.described = tuple(
            ToolDescription(tool.name, tool.description, tool.input.model_json_schema())
            for tool in self._tools.values()
        )
        """What a model is told of them."""

    def check(self, name: str, value: Json) -> None:
        """Raises CallRefused where there is no such tool, or these are no arguments for it."""
        self._checked(name, value)

    async def run(self, name: str, value: Json) -> Json:
        """The output. Raises CallRefused."""
        tool, arguments = self._checked(name, value)
        try:
            output = plain(await tool.run(arguments))
            is_too_large = len(orjson.dumps(output)) > MAX_OUTPUT_BYTES
        except CallRefused:
            raise
        except Exception as error:
            # The edge of a tool: a mistake in one is a result of its call, and the turn goes on.
            log.exception("tool_crashed", tool=name)
            raise CallRefused("tool_failed", "The tool failed.") from error
        if is_too_large:
            raise CallRefused("output_too_large", "The tool's output is too large.")
        return output

    def _checked(self, name: str, value: Json) -> tuple[Tool[Any], BaseModel]:
        tool = self._tools.get(name)
        if tool is None:
            known = ", ".join(self._tools) or "none"
            raise CallRefused("unknown_tool", f"There is no tool of this name. There are: {known}.")
        try:
            return tool, tool.input.model_validate(value)
        except ValidationError as error:
            raise CallRefused("invalid_arguments", _reason(error)) from error


def _reason(error: ValidationError) -> str:
    """What is the matter with which argument."""
    wrong = (f"{'.'.join(map(str, each['loc'])) or 'arguments'}: {each['msg']}" for each in error.errors())
    return f"The arguments do not fit. {'; '.join(wrong)}"[:MAX_REASON_CHARACTERS]


def parsed(arguments: str) -> Json:
    """The arguments that a model gave as text; no text is none. Raises CallRefused."""
    if len(arguments.encode()) > MAX_INPUT_BYTES:
        raise CallRefused("arguments_too_large", TOO_LARGE)
    try:
        value: Json = orjson.loads(arguments) if arguments.strip() else {}
        size = len(orjson.dumps(value))  # what is nested too deep can be read and not be written
    except (orjson.JSONDecodeError, orjson.JSONEncodeError) as error:
        raise CallRefused("invalid_arguments", "The arguments are no JSON.") from error
    if size > MAX_INPUT_BYTES:
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
)
