"""`playhead demo`: the promise, seen: two cut connections, and not an event is missing."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Annotated, Any, Final

import orjson
import typer

from service.cli.doors import Door, StoresOption, TokenOption, UrlOption, Where, run
from service.cli.exits import ProofFailed, code_of_task
from service.cli.screen import Screen
from service.cli.shown import NOTE, Form, Shown, status_of
from service.client import Event
from service.model.chain import NOTHING_READ, NotWhole, Proof, proven
from service.model.ids import SessionId, TaskId
from service.model.position import BEGINNING, Position

TEXT: Final = "/count 40 rate=10"
CUTS: Final = (12, 24)
"""Behind these events, by their number, the connection is cut."""

AWAY_SECONDS: Final = 0.7
"""So long it stays away."""


@dataclass(slots=True)
class _Pieces:
    """What came over one connection after another, proven as one."""

    proof: Proof = NOTHING_READ
    status: Any = None
    cuts: list[Position] = field(default_factory=list)

    def add(self, event: Event) -> None:
        """Raises ProofFailed where it does not follow what came before."""
        try:
            self.proof, _ = proven(self.proof, [(str(event.position).encode(), event.data)])
        except NotWhole:
            raise ProofFailed(f"What came at {event.position} does not follow what came before.") from None
        self.status = status_of(event) or self.status

    def counts(self) -> list[int]:
        """How many events each connection brought."""
        return [b - a for a, b in pairwise([0, *(cut.n for cut in self.cuts), self.proof.events])]


def demo(
    text: Annotated[str, typer.Option(help="What is posted.")] = TEXT,
    as_json: Annotated[bool, typer.Option("--json", help="One object at the end, for programs.")] = False,  # noqa: FBT002
    url: UrlOption = None,
    token: TokenOption = None,
    stores: StoresOption = False,  # noqa: FBT002 - typer makes a flag of it
) -> None:
    """Post a message, follow the answer, cut the own connection twice, and prove that nothing is missing or doubled."""
    run(Where(url, token, stores), partial(_demo, text, as_json=as_json))


async def _demo(text: str, door: Door, *, as_json: bool) -> int:
    screen = Screen(quiet=as_json)
    session_id = await door.create_session()
    task_id = (await door.post(session_id, text)).task_id
    screen.line(f"1. A session, and a message in it. Task {task_id} works on it.")
    screen.line(f"2. Its log is followed; the connection is cut behind events {CUTS[0]} and {CUTS[1]}.")
    pieces = await _read_in_pieces(door, task_id, screen)
    screen.line("3. The log is read once more, in one go, to compare.")
    whole = _Pieces()
    async with aclosing(door.follow(task_id, BEGINNING)) as events:
        async for event in events:
            whole.add(event)
    _compare(pieces.proof, whole.proof)
    if as_json:
        screen.pass_on(_summary(session_id, task_id, pieces))
    else:
        _conclude(screen, pieces)
    return code_of_task(pieces.status)


async def _read_in_pieces(door: Door, task_id: TaskId, screen: Screen) -> _Pieces:
    pieces, shown = _Pieces(), Shown(Form.TEXT, screen)
    while True:
        before = pieces.proof.events
        async with aclosing(door.follow(task_id, pieces.proof.last)) as events:
            async for event in _until_cut(events):
                pieces.add(event)
                shown.show(event)
        if pieces.proof.ended:
            return pieces
        if pieces.proof.events == before:
            raise ProofFailed("The log ended without its terminal event.")
        pieces.cuts.append(pieces.proof.last)
        screen.line(f"--- cut; it comes back with its last position, {pieces.proof.last} ---", "bold")
        await asyncio.sleep(AWAY_SECONDS)


async def _until_cut(events: AsyncGenerator[Event]) -> AsyncGenerator[Event]:
    async for event in events:
        yield event
        if event.position.n in CUTS:
            return


def _compare(pieces: Proof, whole: Proof) -> None:
    """Raises ProofFailed. The last link of the chain is one of every byte before it."""
    if pieces != whole:
        raise ProofFailed("The pieces are not the log.")
    if whole.last.n != whole.events:
        raise ProofFailed(f"The log has {whole.events} events, and its last one has the number {whole.last.n}.")


def _conclude(screen: Screen, pieces: _Pieces) -> None:
    proof, counts = pieces.proof, pieces.counts()
    if len(counts) <= len(CUTS):
        screen.line(f"The log was too short for {len(CUTS)} cuts; there were {len(pieces.cuts)}.", NOTE)
    screen.line(f"   The pieces have {' + '.join(map(str, counts))} events, the log has {proof.events}.")
    screen.line(f"   SHA-256 over all bytes of either: {proof.link.hex()}")
    screen.line("Nothing is missing and nothing came twice: byte for byte, the pieces are the log.", "bold green")


def _summary(session_id: SessionId, task_id: TaskId, pieces: _Pieces) -> bytes:
    summary = {
        "session_id": session_id,
        "task_id": task_id,
        "status": pieces.status,
        "events": pieces.proof.events,
        "cuts": [str(cut) for cut in pieces.cuts],
        "sha256": pieces.proof.link.hex(),
    }
    return orjson.dumps(summary, option=orjson.OPT_APPEND_NEWLINE)
