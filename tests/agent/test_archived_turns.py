"""A turn in both stores: what the hot one lost before it was archived is said again, and then archived."""

import pytest

from service.adapters.memory_log import MemoryLogStore
from service.adapters.postgres_archive import PostgresArchive
from service.model import events as e
from service.model.encoding import decode
from service.model.generation import CallEnded, TextPiece
from service.model.ids import TaskId
from service.model.position import BEGINNING
from service.registry.archive import Archivist
from tests.agent.house import House, Script

ANSWER = Script(TextPiece("There."), CallEnded("stop", e.Usage(1, 2)))


def archivist_of(house: House) -> Archivist:
    assert isinstance(house.logs, MemoryLogStore)
    return Archivist(house.logs, house.logs, PostgresArchive(house.database), hot_ttl_seconds=3600)


async def archived(house: House, task_id: TaskId) -> list[tuple[bytes, bytes]]:
    return list((await PostgresArchive(house.database).read(task_id, BEGINNING, 1000)).events)


async def finished(house: House) -> TaskId:
    task_id = await house.post("Hi")
    await house.run(await house.claim(), ANSWER)
    return task_id


async def test_a_finished_turn_is_archived(house: House) -> None:
    task_id = await finished(house)
    await house.assert_ended_well(task_id)
    await archivist_of(house).archive_some()
    assert await archived(house, task_id) == list((await house.logs.read(task_id, BEGINNING, 1000)).events)


@pytest.mark.parametrize("keep", [0, 1, 3, 5, -1])
async def test_an_ending_that_the_store_lost_before_it_was_archived_is_appended_again_by_the_next_holder(
    house: House, keep: int
) -> None:
    task_id = await finished(house)
    count = len(await house.log(task_id))
    assert isinstance(house.logs, MemoryLogStore)
    house.logs.lose(task_id, keep if keep >= 0 else count - 1)
    if keep == 0:
        house.logs.forget(task_id)
    archivist = archivist_of(house)
    conversation = await house.conversation(task_id)
    assert await house.queue.claim(10, 60) == []
    await archivist.archive_some()
    await house.run(await house.claim())
    chunks = [decode(data) for _, data in (await house.logs.read(task_id, BEGINNING, 1000)).events]
    assert isinstance(chunks[-1], e.Finish)
    assert chunks[-1].message_metadata.output == "There."
    assert sum(isinstance(chunk, e.Finish) for chunk in chunks) == 1
    assert await house.conversation(task_id) == conversation == ["user: Hi", "assistant: There."]
    await archivist.archive_some()
    assert await archived(house, task_id) == list((await house.logs.read(task_id, BEGINNING, 1000)).events)
    assert await house.queue.claim(10, 60) == []


async def test_pitfall_19_an_archived_log_gets_no_second_end(house: House) -> None:
    """However much of its hot copy is lost."""
    task_id = await finished(house)
    archivist = archivist_of(house)
    await archivist.archive_some()
    whole = await archived(house, task_id)
    assert isinstance(house.logs, MemoryLogStore)
    house.logs.lose(task_id, 4)
    for _ in range(2):
        await archivist.archive_some()
        await archivist.sweep_some()
    assert await house.queue.claim(10, 60) == []
    assert await archived(house, task_id) == whole
