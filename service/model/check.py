"""A log looked at event by event, in the order in which it is stored: whatever cannot be so in a whole one is found.

Nothing here raises on a broken log. Once an event is missing or cannot be read, what the others add up to is not looked
at any more: it would be found wrong for that reason alone.
"""

from dataclasses import dataclass, field
from typing import Final

from service.model import events as e
from service.model.chain import BEFORE_THE_FIRST, link
from service.model.encoding import BrokenEvent, decode
from service.model.fold import BrokenLog, LogFold
from service.model.ids import TaskId
from service.model.log import StoredEvent
from service.model.position import BEGINNING, InvalidPosition, Position
from service.model.task import Task
from service.model.verdict import Findings, ReadFrom, Verdict

SETTLE_EVENTS: Final = 1024
"""So often the pieces of a text are put together: they take many times the memory of the text."""

_WAITING: Final = ("input-streaming", "input-available", "approval-responded", "approval-requested")
"""States of a tool call that has no result."""


@dataclass(slots=True)
class LogCheck:
    """One log, as far as it was taken in. Memory: that of the assistant's message."""

    task_id: TaskId | None
    """Whose log it is to be; None where that is not known."""
    found: Findings = field(default_factory=Findings)
    events: int = 0
    first: Position | None = None
    last: Position | None = None
    link: bytes = BEFORE_THE_FIRST
    closed: bool = False
    _highest: int = 0
    _fold: LogFold = field(default_factory=LogFold)
    _folds: bool = True
    """Whether the fold has had every event so far."""
    _start: e.Start | None = None
    _input: e.DataInput | None = None
    _failure: e.FailureMetadata | None = None
    _finish: e.Finish | None = None
    _calls: dict[str, Position] = field(default_factory=dict)
    """Where each tool call began."""

    def take(self, event: StoredEvent) -> None:
        """The next event as it is stored."""
        self.link = link(self.link, event)
        self.events += 1
        position = position_of(event[0])
        if position is None:
            self.found.add("unreadable_event", self.last, "The position of the event behind it cannot be read.")
            self._folds = False
            return
        self._place(position)
        self._read(position, event[1])
        if self.events % SETTLE_EVENTS == 0:
            self._fold.settle()

    def _place(self, position: Position) -> None:
        missing = position.n - self._highest - 1
        if missing > 0:
            self.found.add("missing_events", position, f"In front of it {missing} events are missing.")
        elif missing < 0:
            self.found.add("out_of_order", position, "It stands behind an event of this or of a higher number.")
        self._folds = self._folds and missing == 0
        if self.last is not None and position.ms < self.last.ms:
            self.found.add("time_went_back", position, "Its time is before that of the event in front of it.")
        self.first = self.first or position
        self.last, self._highest = position, max(self._highest, position.n)

    def _read(self, position: Position, data: bytes) -> None:
        chunk = _chunk_of(data)
        if self.closed:
            if isinstance(chunk, e.Finish):
                self.found.add("second_finish", position, "The log has had its terminal event before.")
            else:
                self.found.add("event_after_finish", position, "It stands behind the terminal event.")
            return
        if chunk is None:
            self.found.add("unreadable_event", position, "It is no event: no line of JSON with what its type requires.")
            self._folds = False
            return
        self._note(position, chunk)
        if self._folds:
            self._apply(position, chunk)
        if self._finish is not None:
            self.closed = True
            self._conclude(position, self._finish)

    def _note(self, position: Position, chunk: e.Chunk | e.Unknown) -> None:
        """Keep what the task's row is compared with."""
        match chunk:
            case e.Start():
                self._start = self._start or chunk
                self._expect_task(position, chunk.message_metadata.task_id)
            case e.DataInput():
                self._input = self._input or chunk
            case e.MessageMetadata(message_metadata=e.FailureMetadata() as failure):
                self._failure = failure
                self._expect_task(position, failure.task_id)
            case e.ToolInputStart() | e.ToolInputAvailable():
                self._calls[chunk.tool_call_id] = position
            case e.Finish():
                self._finish = chunk
                self._expect_task(position, chunk.message_metadata.task_id)
            case _:
                pass

    def _expect_task(self, position: Position, task_id: TaskId) -> None:
        if self.task_id not in (None, task_id):
            self.found.add("foreign_event", position, "It says that it is of another task.")

    def _apply(self, position: Position, chunk: e.Chunk | e.Unknown) -> None:
        is_open = self._fold.step_is_open or bool(self._fold.open_texts)
        try:
            self._fold.apply(chunk)
        except BrokenLog:
            self._folds = False
            if is_open and isinstance(chunk, e.Finish | e.Error | e.Abort):
                self.found.add("open_block", position, "The log ends here, and a part or a step is still open.")
            else:
                self.found.add("misplaced_event", position, f"A {chunk.type} cannot stand here.")

    def _conclude(self, position: Position, finish: e.Finish) -> None:
        """What a whole log adds up to."""
        if not self._folds:
            return
        said = finish.message_metadata
        if said.truncated is None and said.output != self._fold.output():
            self.found.add("finish_disagrees", position, "Its output is not the text of the last step.")
        if said.usage != self._fold.usage:
            self.found.add("finish_disagrees", position, "Its usage is not that of the model calls.")
        if said.status != "succeeded":
            return  # a call that failed or was cut off has no result
        asks = finish.finish_reason == "tool-calls"
        for part in self._fold.parts:
            state = part.get("state")
            if part["type"].startswith("tool-") and state in _WAITING and not (asks and state == "approval-requested"):
                at = self._calls.get(part["toolCallId"])
                self.found.add("unpaired_tool_call", at, "The tool call that begins here has no result.")

    def compare(self, row: Task) -> None:
        """The task's row with what the log says of it."""
        pairs: list[tuple[str, object, object]] = []
        if self._start is not None:
            pairs += [("answer_id", self._start.message_id, row.answer_id)]
            pairs += [("session_id", self._start.message_metadata.session_id, row.session_id)]
        if self._input is not None:
            pairs += [("message_id", self._input.data.message_id, row.input_id)]
        if self._finish is not None:
            said = self._finish.message_metadata
            pairs += [("status", said.status, row.status), ("usage", said.usage, row.usage)]
            pairs += [("error_type", self._failure.error_type if self._failure else None, row.error_type)]
        for name, in_log, in_row in pairs:
            if in_log != in_row:
                self.found.add("row_disagrees", self.last, f"The task's {name} is another one than its log's.")

    def verdict(self, read_from: ReadFrom, *, redacted: bool = False) -> Verdict:
        """What this comes to."""
        return Verdict(
            self.task_id,
            self.events,
            self.first,
            self.last,
            self.link,
            read_from,
            self.closed,
            tuple(self.found.listed),
            self.found.unlisted,
            redacted,
        )


def position_of(text: bytes) -> Position | None:
    """What a store gave back as a position; None for what is none, or not as one is written."""
    try:
        position = Position.parse(text.decode("ascii"))
    except (InvalidPosition, UnicodeDecodeError):
        return None
    return position if position > BEGINNING and str(position).encode() == text else None


def _chunk_of(data: bytes) -> e.Chunk | e.Unknown | None:
    """None for what readers of a stream could not take: its type stands in front, and it is one line."""
    if not data.startswith(b'{"type":"') or b"\n" in data or b"\r" in data:
        return None
    try:
        return decode(data)
    except BrokenEvent:
        return None
