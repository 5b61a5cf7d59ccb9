"""What a proof of a log comes to: the facts, and what was found wrong, each with its place."""

from dataclasses import dataclass, field
from typing import Final, Literal

from service.model.ids import TaskId
from service.model.position import Position

MAX_FINDINGS: Final = 20
"""So many are listed; the others are counted."""

FindingType = Literal[
    "missing_events",
    "out_of_order",
    "time_went_back",
    "unreadable_event",
    "foreign_event",
    "misplaced_event",
    "open_block",
    "unpaired_tool_call",
    "second_finish",
    "event_after_finish",
    "no_finish",
    "finish_disagrees",
    "row_disagrees",
    "wrong_end",
    "wrong_sha256",
    "hot_differs",
    "unreadable_line",
    "incomplete_export",
]
"""All that can be wrong. README says what each means."""

ReadFrom = Literal["hot", "archived", "both", "nowhere", "file"]
"""Where a log was read. `both`: in the archive, and the hot copy was compared with it."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that no whole log has. `detail` is for people and repeats nothing of what the log says."""

    type: FindingType
    position: Position | None
    """Of the event where it was noticed; None where the log has none."""
    detail: str


@dataclass(slots=True)
class Findings:
    """What was found so far: the first MAX_FINDINGS."""

    listed: list[Finding] = field(default_factory=list)
    unlisted: int = 0

    def add(self, kind: FindingType, position: Position | None, detail: str) -> None:
        """One more."""
        if len(self.listed) < MAX_FINDINGS:
            self.listed.append(Finding(kind, position, detail))
        else:
            self.unlisted += 1


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found out about a log."""

    task_id: TaskId | None
    """None where a file does not say whose log it is."""
    events: int
    first: Position | None
    last: Position | None
    sha256: bytes
    """The last link of the chain over what was read, 32 bytes."""
    read_from: ReadFrom
    closed: bool
    """Whether the terminal event was read. An open log is proven as far as it was written."""
    findings: tuple[Finding, ...]
    findings_not_listed: int
    redacted: bool = False
    """Whether texts were blanked, so that the chain is that of the file alone."""

    @property
    def is_proven(self) -> bool:
        """Whether nothing was found."""
        return not self.findings
