"""The port `SessionStore`: conversations wherever they are kept.

What is about locks and pools asks for a `database`, and runs on every PostgreSQL that we support.
"""

import asyncio
import re
from contextlib import AsyncExitStack
from urllib.parse import quote

import pytest

from service.adapters.postgres import Database, postgres_pool
from service.adapters.postgres_sessions import PostgresSessions
from service.model.errors import DatabaseUnavailable, NotFound, SessionBusy, UnknownMessage
from service.model.events import FilePart, TextPart, Usage
from service.model.ids import MessageId, SessionId, TaskId
from service.model.session import HISTORY_BYTES, PAGE_BYTES, PAGE_MESSAGES, Posted
from service.sessions.ports import SessionStore
from tests.contracts.conversations import Kept
from tests.sessions.databases import until_somebody_waits
from tests.sessions.endings import ended_with
from tests.sessions.texts import ODD_TEXTS

NOBODYS = TaskId("01890000-0000-7000-8000-000000000000")
UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
HI = [TextPart("Hi")]


@pytest.fixture
def store(kept: Kept) -> SessionStore:
    return kept.store


# --- create, read -----------------------------------------------------------------------------------------------------


async def test_a_new_session_is_empty_and_idle(store: SessionStore) -> None:
    created = await store.create()
    assert UUID7.fullmatch(created.id)
    assert (created.messages, created.busy) == ((), False)
    assert created.created_at.tzinfo is not None
    assert await store.read(created.id) == created


async def test_a_repeat_makes_another_and_ids_sort_by_age(store: SessionStore) -> None:
    made = [(await store.create()).id for _ in range(20)]
    assert len(set(made)) == 20
    in_milliseconds = [session_id[:13] for session_id in made]
    assert in_milliseconds == sorted(in_milliseconds)


@pytest.mark.parametrize("session_id", ["01890000-0000-7000-8000-000000000000", "x", "~" * 128, "'; --", "*", "%"])
async def test_there_is_no_session_that_was_not_created(store: SessionStore, session_id: str) -> None:
    await store.create()
    assert await store.read(SessionId(session_id)) is None


# --- post -------------------------------------------------------------------------------------------------------------


async def test_a_posted_message_is_there_with_its_queued_turn(store: SessionStore, kept: Kept) -> None:
    session = await store.create()
    posted = await store.post(session.id, [TextPart("Hi"), FilePart("image/png", "https://a.test/b.png")])
    now = await store.read(session.id)
    task = await kept.queue.read(posted.task_id)
    assert now is not None
    assert task is not None
    assert UUID7.fullmatch(posted.task_id)
    (message,) = now.messages
    assert (message.id, message.role, message.task_id) == (posted.message_id, "user", posted.task_id)
    assert message.parts == (
        {"type": "text", "text": "Hi"},
        {"type": "file", "mediaType": "image/png", "url": "https://a.test/b.png"},
    )
    assert now.busy
    assert (task.id, task.session_id, task.kind, task.status) == (posted.task_id, session.id, "turn", "queued")
    assert (task.input_id, task.error_type, task.usage) == (posted.message_id, None, Usage(0, 0))
    assert (task.started_at, task.finished_at) == (None, None)
    assert task.answer_id != task.input_id


async def test_posting_to_what_does_not_exist_stores_nothing(store: SessionStore, kept: Kept) -> None:
    before = await kept.counts()
    with pytest.raises(NotFound):
        await store.post(SessionId("nobody's"), HI)
    assert await kept.counts() == before


async def test_one_turn_at_a_time(store: SessionStore, kept: Kept) -> None:
    session = await store.create()
    await store.post(session.id, HI)
    queue = kept.queue
    before = await kept.counts()
    with pytest.raises(SessionBusy):  # while it is queued
        await store.post(session.id, HI)
    (claim,) = await queue.claim(1, 60)
    with pytest.raises(SessionBusy):  # while it runs
        await store.post(session.id, HI)
    assert await kept.counts() == before

    await queue.end(claim, ended_with(claim, "There."))
    again = await store.read(session.id)  # free from the end on, not only from the log's closing on
    assert again is not None
    assert not again.busy
    await store.post(session.id, HI)


async def test_a_busy_session_is_no_other_sessions_affair(store: SessionStore) -> None:
    sessions = [await store.create() for _ in range(3)]
    posted = [await store.post(session.id, HI) for session in sessions]
    assert len({post.task_id for post in posted}) == 3


async def test_pitfall_43_twenty_posts_at_once_make_one_turn(dsn: str, kept: Kept) -> None:
    async with AsyncExitStack() as stack:
        stores = [
            PostgresSessions(Database(await stack.enter_async_context(postgres_pool(dsn, connections=5))))
            for _ in range(4)
        ]
        session = await stores[0].create()
        posts = [store.post(session.id, [TextPart(f"{n}")]) for n, store in enumerate(stores * 5)]
        results = await asyncio.gather(*posts, return_exceptions=True)
    accepted = [result for result in results if isinstance(result, Posted)]
    assert len(accepted) == 1
    assert [type(result) for result in results if not isinstance(result, Posted)] == [SessionBusy] * 19
    assert await kept.counts() == {"sessions": 1, "tasks": 1, "leases": 1, "messages": 1}


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read", "serializable"])
async def test_pitfall_43_a_post_that_had_to_wait_does_not_make_a_second_turn(
    dsn: str, kept: Kept, database: Database, isolation: str
) -> None:
    """What was there when it came does not count; and where that is all that it sees, there is a safety net."""
    sign = "&" if "?" in dsn else "?"
    async with AsyncExitStack() as stack:
        pool = await stack.enter_async_context(
            postgres_pool(f"{dsn}{sign}default_transaction_isolation={quote(isolation)}")
        )
        connection = await stack.enter_async_context(database.connection())
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        store = PostgresSessions(Database(pool))
        session = await store.create()
        async with connection.transaction():
            await connection.fetch("SELECT FROM sessions WHERE id = $1 FOR UPDATE", session.id)
            tasks.create_task(_refused_as_busy(store, session.id))
            await until_somebody_waits(database)
            await connection.fetch("SELECT FROM playhead_post($1, $2)", session.id, [])
    assert await kept.counts() == {"sessions": 1, "tasks": 1, "leases": 1, "messages": 1}


async def _refused_as_busy(store: SessionStore, session_id: SessionId) -> None:
    with pytest.raises(SessionBusy):
        await store.post(session_id, HI)


async def test_posts_to_many_sessions_at_once_do_not_wait_for_each_other_in_a_circle(store: SessionStore) -> None:
    sessions = [await store.create() for _ in range(40)]
    posted = await asyncio.gather(*(store.post(session.id, HI) for session in sessions))
    assert len({post.task_id for post in posted}) == 40


async def test_messages_stand_in_the_order_in_which_they_were_accepted(store: SessionStore, kept: Kept) -> None:
    queue = kept.queue
    session = await store.create()
    for n in range(5):
        await store.post(session.id, [TextPart(f"question {n}")])
        (claim,) = await queue.claim(1, 60)
        await queue.end(claim, ended_with(claim, f"answer {n}"))
    now = await store.read(session.id)
    assert now is not None
    assert [(message.role, message.parts[-1]["text"]) for message in now.messages] == [
        (role, f"{kind} {n}") for n in range(5) for role, kind in (("user", "question"), ("assistant", "answer"))
    ]


# --- pages ------------------------------------------------------------------------------------------------------------


async def whole(store: SessionStore, session_id: SessionId) -> list[list[str]]:
    """The ids on each page, from the newest page back to the first."""
    pages: list[list[str]] = []
    before, earlier = None, True
    while earlier:
        page = await store.read(session_id, before)
        assert page is not None
        pages.append([message.id for message in page.messages])
        before, earlier = page.messages[0].id, page.earlier
    return pages


PAGES = {
    "one message": ([10], [1]),
    "exactly a page": ([10] * PAGE_MESSAGES, [PAGE_MESSAGES]),
    "one more": ([10] * (PAGE_MESSAGES + 1), [PAGE_MESSAGES, 1]),
    "several pages": ([10] * (2 * PAGE_MESSAGES + 17), [PAGE_MESSAGES, PAGE_MESSAGES, 17]),
    "exactly as many bytes": ([PAGE_BYTES // 4] * 4, [4]),
    "one byte more": ([PAGE_BYTES // 4 + 1, *[PAGE_BYTES // 4] * 3], [3, 1]),
    "long ones": ([300 * 1024] * 8, [3, 3, 2]),
    "one that is too long": ([10, 10, 3 * PAGE_BYTES, 10, 10], [2, 1, 2]),
    "the newest is too long": ([10, 10, 3 * PAGE_BYTES], [1, 2]),
}


@pytest.mark.parametrize(("sizes", "expected"), PAGES.values(), ids=PAGES.keys())
async def test_a_conversation_is_read_in_bounded_pages(
    store: SessionStore, kept: Kept, sizes: list[int], expected: list[int]
) -> None:
    session = await store.create()
    said = await kept.say(session.id, sizes)
    await kept.say((await store.create()).id, [10])
    pages = await whole(store, session.id)
    assert [len(page) for page in pages] == expected
    assert [each for page in reversed(pages) for each in page] == said


async def test_there_is_nothing_before_the_first_message(store: SessionStore, kept: Kept) -> None:
    session = await store.create()
    first, *_ = await kept.say(session.id, [10, 10])
    page = await store.read(session.id, MessageId(first))
    assert page is not None
    assert (page.messages, page.earlier) == ((), False)


async def test_before_a_message_that_is_not_of_this_session_there_is_no_page(store: SessionStore, kept: Kept) -> None:
    session, other = await store.create(), await store.create()
    await kept.say(session.id, [10])
    (foreign,) = await kept.say(other.id, [10])
    for unknown in (foreign, NOBODYS, "x", "'; --"):
        with pytest.raises(UnknownMessage):
            await store.read(session.id, MessageId(unknown))
    assert await store.read(SessionId("nobody's"), MessageId(foreign)) is None


HISTORIES = {
    "none": ([], 0),
    "several pages": ([10] * (2 * PAGE_MESSAGES + 17), 2 * PAGE_MESSAGES + 17),
    "exactly as much": ([HISTORY_BYTES // 8] * 8, 8),
    "one byte more": ([HISTORY_BYTES // 8 + 1, *[HISTORY_BYTES // 8] * 7], 7),
    "much more": ([600 * 1024] * 30, 6),
    "none beyond what does not fit": ([10, HISTORY_BYTES, 10], 1),
    "the newest does not fit": ([10, HISTORY_BYTES + 1], 1),
    "long ones between": ([10, 2 * PAGE_BYTES, 10, PAGE_BYTES + 1, 10], 5),
}


@pytest.mark.parametrize(("sizes", "expected"), HISTORIES.values(), ids=HISTORIES.keys())
async def test_a_history_is_the_newest_that_fits(
    store: SessionStore, kept: Kept, sizes: list[int], expected: int
) -> None:
    session = await store.create()
    said = await kept.say(session.id, sizes)
    history = await store.history(session.id)
    assert [message.id for message in history] == said[len(said) - expected :]


async def test_what_does_not_exist_has_no_history(store: SessionStore) -> None:
    assert list(await store.history(SessionId("nobody's"))) == []


# --- what is kept -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ODD_TEXTS.values(), ids=ODD_TEXTS.keys())
async def test_pitfall_59_a_text_comes_back_as_it_was_posted(store: SessionStore, text: str) -> None:
    session = await store.create()
    await store.post(session.id, [TextPart(text), TextPart("")])
    now = await store.read(session.id)
    assert now is not None
    assert now.messages[0].parts == ({"type": "text", "text": text}, {"type": "text", "text": ""})


# --- a database that is away ------------------------------------------------------------------------------------------


async def test_what_is_away_is_told_as_that(dsn: str) -> None:
    async with postgres_pool(dsn) as pool:
        store = PostgresSessions(Database(pool))
        session = await store.create()
        await store.post(session.id, HI)
    for call in (
        store.create(),
        store.read(session.id),
        store.history(session.id),
        store.post(session.id, HI),
    ):
        with pytest.raises(DatabaseUnavailable):
            await call
