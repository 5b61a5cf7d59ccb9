"""What a model asks for, as it comes: into the log, and checked as soon as it is whole."""

import re
from dataclasses import dataclass, field
from itertools import count
from typing import Final

from service.agent.recorder import MAX_DELTA_CHARACTERS, Recorder
from service.agent.tools import MAX_INPUT_BYTES, TOO_LARGE, CallRefused, Toolbox, parsed
from service.model import events as e
from service.model.generation import ToolCallPiece

MAX_CALLS: Final = 64
"""Of one model call; a model that asks for more is ended there."""

_USABLE_ID: Final = re.compile(r"[!-~]{1,64}")
_NOT_IN_A_NAME: Final = re.compile(r"[^A-Za-z0-9_.-]")
_MAX_NAME_CHARACTERS: Final = 64


@dataclass(slots=True)
class _Call:
    id: str
    name: str
    pieces: list[str] = field(default_factory=list)
    size: int = 0


class Asking:
    """The tool calls of one model call."""

    def __init__(self, recorder: Recorder, tools: Toolbox) -> None:
        self._recorder = recorder
        self._tools = tools
        self._calls: dict[str, _Call] = {}

    async def take(self, piece: ToolCallPiece) -> bool:
        """Put a piece into the log; False, and nothing is put, where it begins one call too many."""
        call = self._calls.get(piece.call_id)
        if call is None:
            if len(self._calls) >= MAX_CALLS:
                return False
            await self._recorder.close_parts()
            name = _NOT_IN_A_NAME.sub("_", piece.name)[:_MAX_NAME_CHARACTERS] or "_"
            call = self._calls[piece.call_id] = _Call(self._unused(piece.call_id), name)
            await self._recorder.put(e.ToolInputStart(call.id, call.name))
        call.size += len(piece.arguments)
        if call.size > MAX_INPUT_BYTES:
            call.pieces.clear()  # it is refused, whatever else comes of it
            return True
        call.pieces.append(piece.arguments)
        for start in range(0, len(piece.arguments), MAX_DELTA_CHARACTERS):
            await self._recorder.put(e.ToolInputDelta(call.id, piece.arguments[start : start + MAX_DELTA_CHARACTERS]))
        return True

    async def conclude(self) -> None:
        """The model has ended: put what each call was given, or why it is refused."""
        for call in self._calls.values():
            await self._recorder.put(self._whole(call))

    def _whole(self, call: _Call) -> e.ToolInputAvailable | e.ToolInputError:
        value: e.Json = None
        try:
            if call.size > MAX_INPUT_BYTES:
                raise CallRefused("arguments_too_large", TOO_LARGE)
            value = parsed("".join(call.pieces))
            self._tools.check(call.name, value)
        except CallRefused as refused:
            return e.ToolInputError(call.id, call.name, value, str(refused))
        return e.ToolInputAvailable(call.id, call.name, value)

    def _unused(self, wanted: str) -> str:
        """The model's own id, unless the log has it already or could not take it: results are paired by it."""
        fold = self._recorder.fold
        if _USABLE_ID.fullmatch(wanted) and not fold.has_call(wanted):
            return wanted
        return next(unused for n in count(len(fold.parts)) if not fold.has_call(unused := f"call_{n}"))
