"""An exported log proves itself, wherever it was read; a file that is not whole, or not as it was, is found out."""

from collections.abc import AsyncIterator, Callable
from hashlib import sha256

import orjson
import pytest

from service.model.errors import LogUnavailable, NotFound
from service.model.export import MAX_LINE_BYTES, prove_export
from service.model.ids import TaskId
from service.model.log import Page, TaskFacts
from service.model.position import Position
from service.registry.event_page import LogGone
from service.registry.export import LogStillOpen
from tests.contracts.archives import now_ms, task_made_at
from tests.registry.proofs import SECRET, Bench, bench, kinds, turn
from tests.registry.readers import Library
from tests.registry.test_follow_archived import LOSSES

EVENTS = 17


@pytest.fixture
async def house() -> AsyncIterator[Bench]:
    async with bench() as made:
        yield made


async def exported(house: Bench, task_id: TaskId, *, redact: bool = False) -> list[bytes]:
    """The lines of the file."""
    seal = await house.exporter.seal_of(task_id)
    lines = [piece async for piece in house.exporter.lines(task_id, seal, redact=redact)]
    return b"".join(lines).splitlines(keepends=True)


@pytest.mark.parametrize("where", ["hot", "both", "archived"])
async def test_an_export_proves_itself(house: Bench, where: str) -> None:
    task_id: TaskId = await getattr(house, where)()
    lines = await exported(house, task_id)
    verdict, stored = prove_export(lines), await house.prove(task_id)
    assert (verdict.is_proven, verdict.read_from, verdict.redacted) == (True, "file", False)
    assert (verdict.task_id, verdict.sha256, verdict.events) == (task_id, stored.sha256, EVENTS)
    manifest, end = orjson.loads(lines[0]), orjson.loads(lines[-1])
    assert (manifest["format"], manifest["task"]) == ("playhead-log-1", task_id)
    assert manifest["archived_sha256"] == (None if where == "hot" else stored.sha256.hex())
    assert end == {
        "events": EVENTS,
        "first": str(stored.first),
        "last": str(stored.last),
        "sha256": stored.sha256.hex(),
    }


async def test_a_foreign_program_needs_a_slice_of_each_line_to_check_it(house: Bench) -> None:
    lines = await exported(house, await house.archived())
    seen = bytes(32)
    for line in lines[1:-1]:
        position = line[7 : line.index(b'"', 7)]
        data = line[len(position) + 16 : -2]
        assert orjson.loads(line) == {"id": position.decode(), "data": orjson.loads(data)}
        seen = sha256(seen + b"id: " + position + b"\ndata: " + data + b"\n\n").digest()
    assert seen.hex() == orjson.loads(lines[-1])["sha256"] == orjson.loads(lines[0])["archived_sha256"]


@pytest.mark.parametrize("lose", LOSSES)
async def test_an_export_is_the_same_whatever_the_hot_store_has_left(
    house: Bench, lose: Callable[[Library, TaskId], None]
) -> None:
    task_id = await house.both()
    lines = await exported(house, task_id)
    lose(house.library, task_id)
    assert await exported(house, task_id) == lines


async def test_whatever_is_done_to_a_file_is_found(house: Bench) -> None:
    lines = await exported(house, await house.archived())
    assert prove_export(lines).is_proven
    other = await exported(house, await house.archived())
    swapped = [*lines[:9], lines[10], lines[9], *lines[11:]]
    spaced = [lines[0], lines[1].replace(b'"data":', b'"data": '), *lines[2:]]
    tampered: dict[str, tuple[list[bytes], set[str]]] = {
        "cut": (lines[:-1], {"incomplete_export"}),
        "cut in a line": ([*lines[:9], lines[9][:20]], {"unreadable_line", "incomplete_export", "wrong_sha256"}),
        "a word": ([line.replace(b"know 2", b"know 3") for line in lines], {"wrong_sha256"}),
        "missing": ([*lines[:9], *lines[10:]], {"missing_events", "wrong_end", "wrong_sha256"}),
        "swapped": (swapped, {"missing_events", "out_of_order", "wrong_sha256"}),
        "another count": ([*lines[:-1], lines[-1].replace(b"17,", b"18,")], {"wrong_end"}),
        "another sha256": ([*lines[:-1], lines[-1].replace(b'"sha256":"', b'"sha256":"0')], {"wrong_sha256"}),
        "another's manifest": ([other[0], *lines[1:]], {"foreign_event", "wrong_sha256"}),
        "more behind": ([*lines, lines[1]], {"unreadable_line"}),
        "no manifest": (lines[1:], {"unreadable_line", "missing_events", "wrong_end", "wrong_sha256"}),
        "written anew": (spaced, {"unreadable_event", "wrong_sha256"}),
        "a long line": ([*lines[:-1], b"x" * MAX_LINE_BYTES, lines[-1]], {"unreadable_line"}),
        "nothing": ([], {"incomplete_export"}),
    }
    by_the_clock = {"time_went_back"}  # where two of them are swapped that were written in two milliseconds
    found = {name: set(kinds(prove_export(changed))) - by_the_clock for name, (changed, _) in tampered.items()}
    assert found == {name: expected for name, (_, expected) in tampered.items()}


async def test_a_log_that_is_no_more_what_was_archived_is_told_by_its_export(house: Bench) -> None:
    """The file is in itself whole: its chain is of what it has."""
    task_id = await house.archived()
    rows = house.rows(task_id)
    n, ms, data = rows[9]
    rows[9] = (n, ms, data.replace(b"Only", b"Onlx"))
    verdict = prove_export(await exported(house, task_id))
    assert kinds(verdict) == ["finish_disagrees", "wrong_sha256"]


async def test_what_is_missing_stands_in_the_file(house: Bench) -> None:
    task_id = await house.hot()
    events = list(house.events(task_id))
    house.put_hot(task_id, events[:4] + events[6:])
    lines = await exported(house, task_id)
    assert [orjson.loads(line)["gap"]["lost"] for line in lines if b'{"gap"' in line] == [2]
    assert kinds(prove_export(lines)) == ["missing_events"]


async def test_what_is_open_or_is_not_there_is_not_exported(house: Bench) -> None:
    task = house.task()
    await house.write(task, turn(task)[:9], "running")
    with pytest.raises(LogStillOpen):
        await house.exporter.seal_of(task.id)
    with pytest.raises(NotFound):
        await house.exporter.seal_of(task_made_at(now_ms()))


async def test_a_log_that_is_gone_has_no_first_line(house: Bench) -> None:
    task_id = await house.hot()
    house.library.store.forget(task_id)
    house.library.directory.closed.add(task_id)
    with pytest.raises(LogGone):
        await anext(house.exporter.lines(task_id, None))


async def test_an_export_that_fails_in_the_middle_has_no_last_line(house: Bench) -> None:
    task = house.task()
    await house.write(task, turn(task, words=600))
    read, reads = house.library.store.read, 0

    async def once(task_id: TaskId, after: Position, count: int) -> Page:
        nonlocal reads
        reads += 1
        if reads > 1:
            raise LogUnavailable
        return await read(task_id, after, count)

    house.library.store.read = once  # type: ignore[method-assign]
    lines: list[bytes] = []

    async def export() -> None:
        async for piece in house.exporter.lines(task.id, None):
            lines.append(piece)  # noqa: PERF401 - what came before it failed is looked at

    with pytest.raises(LogUnavailable):
        await export()
    assert len(lines) > 1
    assert kinds(prove_export(b"".join(lines).splitlines(keepends=True))) == ["incomplete_export"]


async def test_an_export_whose_end_is_not_to_be_had_has_no_last_line(house: Bench) -> None:
    """The database says that the log was closed, the store has lost its end and nobody has said it again yet."""
    task_id = await house.hot()
    house.library.store.lose(task_id, 9)

    async def facts(_: TaskId) -> TaskFacts:
        return TaskFacts(log_closed=False)

    house.library.directory.facts = facts  # type: ignore[method-assign]
    with pytest.raises(LogUnavailable):
        [piece async for piece in house.exporter.lines(task_id, None)]


async def test_a_redacted_export_says_nothing_and_proves_itself(house: Bench) -> None:
    task_id = await house.archived()
    open_lines, lines = await exported(house, task_id), await exported(house, task_id, redact=True)
    verdict = prove_export(lines)
    assert (verdict.is_proven, verdict.redacted, verdict.events) == (True, True, EVENTS)
    text = b"".join(lines)
    assert SECRET.encode() in b"".join(open_lines)
    assert not any(word.encode() in text for word in ("Only", "know", "query"))
    for line, before in zip(lines[1:-1], open_lines[1:-1], strict=True):
        blanked, said = orjson.loads(line), orjson.loads(before)
        assert (blanked["id"], blanked["data"]["type"]) == (said["id"], said["data"]["type"])
        if "delta" in said["data"]:
            assert len(blanked["data"]["delta"]) == len(said["data"]["delta"])
    lines[9] = lines[10]
    assert not prove_export(lines).is_proven
