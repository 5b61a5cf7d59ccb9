"""The promises, checked from outside: by what readers recorded, and by what both stores say at the end.

Each check is named as in its message, so that a failure says which promise was broken.
"""

from collections.abc import Iterable
from typing import Final

from service.model import events as e
from service.model.encoding import decode, plain
from service.model.fold import LogFold
from tests.acceptance.client import Stored, assert_whole, frames
from tests.faults.patience import until
from tests.faults.recorder import Recorder
from tests.faults.truth import Row, Truth
from tests.faults.turns import Turn

HEALED_SECONDS: Final = 10.0
"""After the last fault is gone, everything moves again within this time."""

ARCHIVED_SECONDS: Final = 40.0
"""And closed logs are archived within this one: an archiver rests up to half a minute while a store is away."""


def folded(log: list[Stored]) -> LogFold:
    """What the log says; raises where it is no order that a reader could follow."""
    fold = LogFold()
    for event in log:
        fold.apply(decode(event.json))
    return fold


def i1_everything_is_stored_once(log: list[Stored], turn: Turn) -> None:
    """The answer, resets applied, is what the model says: each delta once."""
    said = "".join(part["text"] for part in folded(log).message_parts() if part["type"] == "text")
    assert said == turn.answer, f"I1: {turn.task_id} says {said[-60:]!r} for {turn.answer[-60:]!r}"


def i2_numbers_are_dense_and_nothing_is_rewritten(log: list[Stored], recorders: Iterable[Recorder]) -> None:
    """What any reader ever saw at a position still stands there; only of a gap that was told it may be gone."""
    assert_whole(log)
    stored = {event.position.encode(): event.frame for event in log}
    for recorder in recorders:
        assert recorder.rewritten == [], f"I2: {recorder.task_id} was rewritten at {recorder.rewritten}"
        for position, frame in recorder.known.items():
            if position in stored or not recorder.gaps:
                assert stored.get(position) == frame, f"I2: {recorder.task_id} shows something else at {position!r}"


def i3_every_reader_has_exactly_the_log(log: list[Stored], recorders: Iterable[Recorder]) -> None:
    """Byte for byte over all its connections; from the last gap on, if one was told."""
    whole = frames(log)
    for recorder in recorders:
        got = b"".join(recorder.frames)
        assert recorder.end in ("done", "204"), f"I3: {recorder.task_id} has no end, but {recorder.end!r}"
        assert whole.endswith(got) if recorder.gaps else whole == got, f"I3: {recorder.task_id}: {_differs(whole, got)}"


def no_gap_was_told(recorders: Iterable[Recorder]) -> None:
    """Where nothing was lost, nobody is told of a loss."""
    told = [recorder.gaps for recorder in recorders if recorder.gaps]
    assert not told, f"I3: a gap was told though nothing is lost: {told[0]}"


def i5_who_lost_its_lease_writes_nothing(log: list[Stored], row: Row, truth: Truth) -> None:
    """Attempts are in the order of their epochs, and nobody spoke after its successor."""
    epochs = [chunk.data.epoch for event in log if isinstance(chunk := decode(event.json), e.DataAttempt)]
    assert epochs == sorted(set(epochs)), f"I5: attempts {epochs}"
    assert epochs[-1] <= row.epoch, f"I5: attempt {epochs[-1]} of a lease with epoch {row.epoch}"
    assert truth.witness.late == [], f"I5: {truth.witness.late}"


async def i6_the_archive_has_what_the_log_had(truth: Truth) -> None:
    """Of every log that was checked when it was over: byte for byte, wherever it is by now."""

    async def everything_is_archived() -> bool:
        return not await truth.unarchived()

    await until(everything_is_archived, ARCHIVED_SECONDS)
    archived = await truth.archived(list(truth.logs))
    for task_id, whole in truth.logs.items():
        assert frames(archived[task_id]) == whole, f"I6: the archive has another log of {task_id}"
    truth.logs.clear()


def i7_the_row_says_what_the_log_says(log: list[Stored], row: Row) -> None:
    """Status, usage, the one message of the assistant; and that nothing is owed any more."""
    fold = folded(log)
    assert row.log_closed, "I7: the log is owed its ending"
    assert row.status == fold.status, f"I7: the row says {row.status}, the log {fold.status}"
    usage = {"input_tokens": fold.usage.input_tokens, "output_tokens": fold.usage.output_tokens}
    assert row.usage == usage, f"I7: the row says {row.usage}, the log {usage}"
    message = (fold.message_id, [plain(part) for part in fold.message_parts()])
    assert row.answers == [message], f"I7: {len(row.answers)} messages of the assistant, or not what the log says"


async def i10_everything_moves(truth: Truth, since: dict[str, bytes]) -> None:
    """Each task is over, or its log has grown since then; `since` is what `standing` said when all was healed."""
    still = dict(since)

    async def nothing_stands() -> bool:
        for task in still.keys() - await truth.unclosed():
            del still[task]
        for task, last in list(still.items()):
            if await truth.last(task) != last:
                del still[task]
        return not still

    try:
        await until(nothing_stands, HEALED_SECONDS)
    except TimeoutError:
        raise AssertionError(f"I10: after {HEALED_SECONDS:g} s these tasks still stand: {still}") from None


async def standing(truth: Truth) -> dict[str, bytes]:
    """Where the logs of all tasks that are not over end now."""
    return {task: await truth.last(task) for task in await truth.unclosed()}


async def over(truth: Truth, *turns: Turn) -> None:
    """Wait until nothing is owed to these."""
    tasks = {turn.task_id for turn in turns}

    async def nothing_is_owed() -> bool:
        return not tasks & await truth.unclosed()

    await until(nothing_is_owed, 3 * HEALED_SECONDS)


async def assert_kept(truth: Truth, *turns: Turn, lost: bool = False) -> None:
    """All of it, for turns that their readers have to the end.

    `lost`: a store has lost what nobody could repair, so that gaps may be told.
    """
    await over(truth, *turns)
    for turn in turns:
        log, row = await truth.log(turn.task_id), await truth.row(turn.task_id)
        try:
            i1_everything_is_stored_once(log, turn)
            i2_numbers_are_dense_and_nothing_is_rewritten(log, turn.recorders)
            i3_every_reader_has_exactly_the_log(log, turn.recorders)
            if not lost:
                no_gap_was_told(turn.recorders)
            i5_who_lost_its_lease_writes_nothing(log, row, truth)
            i7_the_row_says_what_the_log_says(log, row)
            truth.logs[turn.task_id] = frames(log)
        except AssertionError as error:
            error.add_note(f"task {turn.task_id}, while {turn.faults or ['what the test did']}")
            raise


def _differs(whole: bytes, got: bytes) -> str:
    at = next((i for i, (a, b) in enumerate(zip(whole, got, strict=False)) if a != b), min(len(whole), len(got)))
    return f"of {len(whole)} bytes {len(got)} came; at {at}: {whole[at - 20 : at + 60]!r} / {got[at - 20 : at + 60]!r}"
