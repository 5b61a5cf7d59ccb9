"""The tool calls of a chat completion's stream: which call each delta belongs to. Pure.

The standard tells calls apart by `index`, and names each in its first delta. Some endpoints send no index, or one for
all calls, and each call whole; some send no ids; some repeat id and name in every delta. Without an id, a name behind a
call that was whole at once begins another one.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from service.model.failures import ModelCallFailed
from service.model.generation import ToolCallPiece


@dataclass(frozen=True, slots=True)
class _Begun:
    sent_id: str
    call_id: str
    name: str
    is_whole: bool
    """Whether its first delta had all of its arguments."""


class Calls:
    """Those of one answer."""

    def __init__(self) -> None:
        self._begun: list[_Begun] = []
        self._newest: dict[object, _Begun] = {}
        """By index: the one that a delta without an id goes on with."""

    @property
    def are_there(self) -> bool:
        """Whether the model asked for anything."""
        return bool(self._begun)

    def read(self, deltas: object) -> Iterator[ToolCallPiece]:
        """What these deltas say. Raises ModelCallFailed for what is no call, or goes on with one that never began."""
        if not isinstance(deltas, list):
            raise ModelCallFailed("invalid_response")
        for delta in deltas:
            match delta:
                case {"function": dict() as function}:
                    yield self._read(delta, function)
                case _:
                    raise ModelCallFailed("invalid_response")

    def _read(self, delta: dict[str, Any], function: dict[str, Any]) -> ToolCallPiece:
        sent_id, name, index = delta.get("id") or "", function.get("name") or "", delta.get("index")
        arguments = function.get("arguments")
        arguments = json.dumps(arguments) if isinstance(arguments, dict) else arguments or ""
        if not all(isinstance(each, str) for each in (sent_id, name, arguments)) or isinstance(index, list | dict):
            raise ModelCallFailed("invalid_response")
        call = self._newest.get(index)
        if call is None or (name and (sent_id != call.sent_id if sent_id else call.is_whole)):
            if not name:
                raise ModelCallFailed("invalid_response")
            call = self._begin(sent_id, name, is_whole=_is_object(arguments))
        self._newest[index] = call
        return ToolCallPiece(call.call_id, call.name, arguments)

    def _begin(self, sent_id: str, name: str, *, is_whole: bool) -> _Begun:
        taken = any(call.call_id == sent_id for call in self._begun)
        call_id = f"{sent_id or 'call'}_{len(self._begun)}" if taken or not sent_id else sent_id
        call = _Begun(sent_id, call_id, name, is_whole)
        self._begun.append(call)
        return call


def _is_object(arguments: str) -> bool:
    """Whether this is a JSON object from its beginning to its end."""
    try:
        return isinstance(json.loads(arguments), dict)
    except (ValueError, RecursionError):
        return False
