"""The port `Backlogs`: how far behind the service is, wherever its tasks are kept."""

from service.model import events as e
from service.model.caller import EVERYONES
from service.model.ids import SessionId, TaskId
from service.model.session import NewMessage
from service.model.task import Backlog
from service.sessions.ports import Backlogs
from tests.contracts.conversations import Kept
from tests.sessions.endings import ended_with

LEASE, LAPSED = 60.0, 0.0


async def queued(kept: Kept) -> tuple[SessionId, TaskId]:
    session = await kept.store.create(None)
    posted = await kept.store.post(EVERYONES, session.id, NewMessage((e.TextPart("Hi"),)))
    return session.id, posted.task_id


async def test_each_thing_that_is_to_be_done_is_counted_until_it_is(kept: Kept) -> None:
    backlogs: Backlogs = kept.queue  # type: ignore[assignment]
    assert await backlogs.backlog() == Backlog(0, None, 0, 0, 0, None, 0)
    for _ in range(5):
        session_id, _ = await queued(kept)
    found = await backlogs.backlog()
    assert (found.queued, found.running) == (5, 0)
    assert 0 <= (found.oldest_queued_seconds or 0) < 60
    held, to_close, _ = [*await kept.queue.claim(2, LEASE), *await kept.queue.claim(1, LAPSED)]
    found = await backlogs.backlog()
    assert (found.queued, found.running, found.lapsed) == (2, 3, 1)
    await kept.queue.end(to_close, ended_with(to_close, "There."))
    found = await backlogs.backlog()
    assert (found.running, found.lapsed, found.unarchived) == (2, 1, 0)
    await kept.queue.renew([to_close, held], LAPSED)
    assert (await backlogs.backlog()).lapsed == 3  # one of them owes its log its ending
    await kept.queue.close(to_close)
    found = await backlogs.backlog()
    assert (found.lapsed, found.unarchived, found.unremoved) == (2, 1, 0)
    assert found.oldest_unarchived_seconds is not None
    await kept.store.delete(EVERYONES, session_id)
    assert (await backlogs.backlog()).unremoved == 1
