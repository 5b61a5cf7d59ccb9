"""How the events of a log are shown: as the text that they are for people, as the frames that they are, as JSON."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final

import orjson

from service.cli.screen import Screen
from service.client import Event
from service.model.encoding import frames

NOTE: Final = "dim"
"""The style of what is said about an answer."""

MAX_NOTE_CHARACTERS: Final = 200
"""So much is shown of what a tool was given or gave."""


class Form(StrEnum):
    """What is printed of an event."""

    TEXT = "text"
    EVENTS = "events"
    JSON = "json"


class Shown:
    """Prints events one after the other, in one form."""

    def __init__(self, form: Form, screen: Screen) -> None:
        self._form = form
        self._screen = screen

    def show(self, event: Event) -> None:
        """Print it; raises NobodyReads."""
        position = str(event.position).encode()
        match self._form:
            case Form.TEXT:
                self._tell(event)
            case Form.EVENTS:
                self._screen.pass_on(frames([(position, event.data)]))
            case Form.JSON:
                self._screen.pass_on(b'{"id":"%b","data":%b}\n' % (position, event.data))

    def _tell(self, event: Event) -> None:
        chunk = event.chunk
        match chunk["type"]:
            case "text-delta":
                self._screen.say(str(chunk.get("delta", "")))
            case "reasoning-delta":
                self._screen.say(str(chunk.get("delta", "")), "italic dim")
            case "text-start" | "reasoning-start" | "text-end" | "reasoning-end":
                self._screen.begin_line()
            case "data-input":
                self._screen.line("> " + text_of(_of(chunk, "data")).replace("\n", "\n> "), "cyan")
            case "error":
                self._screen.line(str(chunk.get("errorText", "")), "red")
            case "finish":
                self._screen.line(f"[{status_of(event)} at {event.position}]", NOTE)
            case _:
                note = _note(chunk)
                if note is not None:
                    self._screen.line(f"[{note}]", NOTE)


def _note(chunk: Mapping[str, Any]) -> str | None:
    """What people are told beside the answer's text."""
    data = _of(chunk, "data")
    match chunk["type"]:
        case "data-attempt" if data.get("epoch") != 1:
            return f"a worker goes on, with epoch {data.get('epoch')}"
        case "data-retry":
            return f"a call of the model failed; it is made again in {data.get('waitSeconds')} s"
        case "reset-step":
            return "this step is begun anew: what it said so far does not count"
        case "tool-input-available":
            return f"asks {chunk.get('toolName')}: {_short(chunk.get('input'))}"
        case "tool-output-available":
            return f"gets {_short(chunk.get('output'))}"
        case "tool-input-error" | "tool-output-error":
            return f"gets an error: {_short(chunk.get('errorText'))}"
        case "data-bounce-back":
            return "the message never reached the model, and is given back"
        case "abort":
            return str(chunk.get("reason"))
    return None


def status_of(event: Event) -> Any:
    """How the task ended, of its terminal event."""
    return _of(event.chunk, "messageMetadata").get("status")


def _of(chunk: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    inner = chunk.get(name)
    return inner if isinstance(inner, dict) else {}


def text_of(data: Mapping[str, Any]) -> str:
    """What the text parts of a message say."""
    parts = data.get("parts")
    texts = [part.get("text") for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []
    return "\n".join(text for text in texts if isinstance(text, str))


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else orjson.dumps(value).decode()
    return text if len(text) <= MAX_NOTE_CHARACTERS else text[:MAX_NOTE_CHARACTERS] + "…"
