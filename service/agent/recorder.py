"""A worker's pen: what goes into the log and into the fold goes through here, so that the two agree."""

from typing import Final

from service.model import events as e
from service.model.failures import NO_RESULT
from service.model.fold import LogFold
from service.model.generation import ReasoningPiece, TextPiece
from service.model.ids import PartId
from service.model.position import Position
from service.registry.task_log import TaskLog

MAX_DELTA_CHARACTERS: Final = 32 * 1024
"""Of one delta: even where JSON takes six bytes for each, it fits an event."""


class Recorder:
    """Writes one task's log and folds what it writes."""

    def __init__(self, log: TaskLog, fold: LogFold) -> None:
        self._log = log
        self.fold = fold

    async def put(self, *chunks: e.Chunk) -> None:
        """Events, to be stored soon. Interrupted, it has put none or some of them, and folded the same."""
        for chunk in chunks:
            await self._log.room()
            self.fold.apply(chunk)
            await self._log.put(chunk)  # there is room, so this does not wait

    async def flush(self) -> Position:
        """Everything so far is stored when this returns."""
        return await self._log.flush()

    async def say(self, piece: TextPiece | ReasoningPiece) -> None:
        """What the model says, in a part of its kind; a part of the other kind that is open is closed first."""
        is_text = isinstance(piece, TextPiece)
        part_id = self._open_part(is_text=is_text)
        if part_id is None:
            await self.close_parts()
            part_id = PartId(f"p{len(self.fold.parts)}")  # counts what is in the message: the same after a reset
            await self.put(e.TextStart(part_id) if is_text else e.ReasoningStart(part_id))
        delta = e.TextDelta if is_text else e.ReasoningDelta
        for start in range(0, len(piece.text), MAX_DELTA_CHARACTERS):
            await self.put(delta(part_id, piece.text[start : start + MAX_DELTA_CHARACTERS]))

    async def close_parts(self) -> None:
        """Close the text or reasoning that is open."""
        await self.put(*self.fold.open_texts)

    def _open_part(self, *, is_text: bool) -> PartId | None:
        kind = e.TextEnd if is_text else e.ReasoningEnd
        return next((part.id for part in self.fold.open_texts if isinstance(part, kind)), None)


async def settle(recorder: Recorder, of_calls: str = NO_RESULT) -> None:
    """What was said is in the log when this returns: nothing is open that grows, no call is without a result."""
    await recorder.close_parts()
    waiting = [
        call for call in recorder.fold.open_step_calls if call["state"] in ("input-streaming", "input-available")
    ]
    await recorder.put(*(e.ToolOutputError(call["toolCallId"], of_calls) for call in waiting))
    await recorder.flush()
