"""The port `SessionStore`: conversations wherever they are kept.

What is about locks and pools asks for a `database`, and runs on every PostgreSQL that we support.
"""

import asyncio
import re
from contextlib import AsyncExitStack
from urllib.parse import quote

import pytest

from service.adapters.postgres import Database, postgres_pool
from service.adapters.postgres_messages import PostgresMessages
from service.adapters.postgres_sessions import PostgresSessions
from service.model.caller import EVERYONES
from service.model.errors import DatabaseUnavailable, NotFound, UnknownMessage
from service.model.events import FilePart, TextPart, Usage
from service.model.ids import MessageId, SessionId, TaskId
from service.model.session import (
    HISTORY_BYTES,
    PAGE_BYTES,
    PAGE_MESSAGES,
    UNSET,
    History,
    NewMessage,
    Session,
    SessionChange,
)
from service.sessions.ports import MessageStore
from tests.contracts.conversations import Kept, Store
from tests.sessions.databases import until_somebody_waits
from tests.sessions.endings import ended_with
from tests.sessions.texts import ODD_TEXTS

NOBODYS = TaskId("01890000-0000-7000-8000-000000000000")
UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
HI = NewMessage((TextPart("Hi"),))


@pytest.fixture
def store(kept: Kept) -> Store:
    return kept.store


# --- create, read -----------------------------------------------------------------------------------------------------


async def test_a_new_session_is_empty_and_idle(store: Store) -> None:
    created = await store.create(None)
    assert UUID7.fullmatch(created.id)
    assert (created.owner, created.settings, created.busy) == (None, UNSET, False)
    assert created.created_at.tzinfo is not None
    assert await store.read(EVERYONES, created.id) == Session(created, (), (), earlier=False)


async def test_a_message_that_is_taken_while_its_session_is_read_is_seen_once(kept: Kept, database: Database) -> None:
    session = await kept.store.create(None)
    await kept.store.post(EVERYONES, session.id, HI)
    (claim,) = await kept.queue.claim(1, 60)
    waiting = await kept.store.post(EVERYONES, session.id, HI)
    async with database.connection() as connection, asyncio.TaskGroup() as group:
        async with connection.transaction():
            await connection.execute("LOCK TABLE pending_messages IN ACCESS EXCLUSIVE MODE")
            reading = group.create_task(kept.store.read(EVERYONES, session.id))
            await until_somebody_waits(database)
            await connection.fetch("SELECT playhead_promote($1, $2, 1, '[]', '{}', '{}')", claim.task.id, claim.epoch)
        now = await reading
    assert now is not None
    assert [each.id for each in (*now.messages, *now.pending)].count(waiting.message_id) == 1


async def test_a_repeat_makes_another_and_ids_sort_by_age(store: Store) -> None:
    made = [(await store.create(None)).id for _ in range(20)]
    assert len(set(made)) == 20
    in_milliseconds = [session_id[:13] for session_id in made]
    assert in_milliseconds == sorted(in_milliseconds)


@pytest.mark.parametrize("session_id", ["01890000-0000-7000-8000-000000000000", "x", "~" * 128, "'; --", "*", "%"])
async def test_there_is_no_session_that_was_not_created(store: Store, session_id: str) -> None:
    await store.create(None)
    assert await store.read(EVERYONES, SessionId(session_id)) is None


# --- post -------------------------------------------------------------------------------------------------------------


async def test_a_posted_message_is_there_with_its_queued_turn(store: Store, kept: Kept) -> None:
    session = await store.create(None)
    posted = await store.post(
        EVERYONES,
        session.id,
        NewMessage(
            (
                TextPart("Hi"),
                FilePart("image/png", "https://a.test/b.png"),
            )
        ),
    )
    now = await store.read(EVERYONES, session.id)
    task = await kept.queue.read(EVERYONES, posted.task_id)
    assert now is not None
    assert task is not None
    assert UUID7.fullmatch(posted.task_id)
    (message,) = now.messages
    assert (message.id, message.role, message.task_id) == (posted.message_id, "user", posted.task_id)
    assert message.parts == (
        {"type": "text", "text": "Hi"},
        {"type": "file", "mediaType": "image/png", "url": "https://a.test/b.png"},
    )
    assert now.entry.busy
    assert (task.id, task.session_id, task.kind, task.status) == (posted.task_id, session.id, "turn", "queued")
    assert (task.input_id, task.error_type, task.usage) == (posted.message_id, None, Usage(0, 0))
    assert (task.started_at, task.finished_at) == (None, None)
    assert task.answer_id != task.input_id


async def test_posting_to_what_does_not_exist_stores_nothing(store: Store, kept: Kept) -> None:
    before = await kept.counts()
    with pytest.raises(NotFound):
        await store.post(EVERYONES, SessionId("nobody's"), HI)
    assert await kept.counts() == before


async def test_one_turn_at_a_time(store: Store, kept: Kept) -> None:
    session = await store.create(None)
    first = await store.post(EVERYONES, session.id, HI)
    queued = await store.post(EVERYONES, session.id, HI)
    assert (queued.task_id, queued.status) == (first.task_id, "pending")
    (claim,) = await kept.queue.claim(9, 60)
    running = await store.post(EVERYONES, session.id, HI)
    assert (running.task_id, running.status) == (first.task_id, "pending")
    assert await kept.counts() == {"sessions": 1, "tasks": 1, "leases": 1, "messages": 1, "pending_messages": 2}
    assert await kept.queue.claim(9, 60) == []

    await kept.queue.end(claim, ended_with(claim, "There."))  # free from the end on, not only from the log's closing on
    (following,) = await kept.queue.claim(9, 60)
    assert following.task.input_id == queued.message_id


async def test_a_busy_session_is_no_other_sessions_affair(store: Store) -> None:
    sessions = [await store.create(None) for _ in range(3)]
    posted = [await store.post(EVERYONES, session.id, HI) for session in sessions]
    assert len({post.task_id for post in posted}) == 3


async def test_pitfall_43_twenty_posts_at_once_make_one_turn(dsn: str, kept: Kept) -> None:
    async with AsyncExitStack() as stack:
        stores = [
            PostgresMessages(Database(await stack.enter_async_context(postgres_pool(dsn, connections=5))))
            for _ in range(4)
        ]
        session = await kept.store.create(None)
        posts = [
            store.post(EVERYONES, session.id, NewMessage((TextPart(f"{n}"),))) for n, store in enumerate(stores * 5)
        ]
        results = await asyncio.gather(*posts)
    assert [result.status for result in results].count("accepted") == 1
    assert len({result.task_id for result in results}) == 1
    assert await kept.counts() == {"sessions": 1, "tasks": 1, "leases": 1, "messages": 1, "pending_messages": 19}


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
        store = PostgresMessages(Database(pool))
        session = await kept.store.create(None)
        async with connection.transaction():
            await connection.fetch("SELECT FROM sessions WHERE id = $1 FOR UPDATE", session.id)
            waiting = tasks.create_task(_posted(store, session.id))
            await until_somebody_waits(database)
            await connection.fetch("SELECT playhead_begin_turn($1, 'first', '[]', now(), NULL)", session.id)
    sees_it = isolation == "read committed"
    assert waiting.result() == ("pending" if sees_it else None)
    pending = {"pending_messages": int(sees_it)}
    assert await kept.counts() == {"sessions": 1, "tasks": 1, "leases": 1, "messages": 1} | pending


async def _posted(store: MessageStore, session_id: SessionId) -> str | None:
    try:
        return (await store.post(EVERYONES, session_id, HI)).status
    except DatabaseUnavailable:
        return None


async def test_posts_to_many_sessions_at_once_do_not_wait_for_each_other_in_a_circle(store: Store) -> None:
    sessions = [await store.create(None) for _ in range(40)]
    posted = await asyncio.gather(*(store.post(EVERYONES, session.id, HI) for session in sessions))
    assert len({post.task_id for post in posted}) == 40


async def test_messages_stand_in_the_order_in_which_they_were_accepted(store: Store, kept: Kept) -> None:
    queue = kept.queue
    session = await store.create(None)
    for n in range(5):
        await store.post(EVERYONES, session.id, NewMessage((TextPart(f"question {n}"),)))
        (claim,) = await queue.claim(1, 60)
        await queue.end(claim, ended_with(claim, f"answer {n}"))
    now = await store.read(EVERYONES, session.id)
    assert now is not None
    assert [(message.role, message.parts[-1]["text"]) for message in now.messages] == [
        (role, f"{kind} {n}") for n in range(5) for role, kind in (("user", "question"), ("assistant", "answer"))
    ]


# --- pages ------------------------------------------------------------------------------------------------------------


async def whole(store: Store, session_id: SessionId) -> list[list[str]]:
    """The ids on each page, from the newest page back to the first."""
    pages: list[list[str]] = []
    before, earlier = None, True
    while earlier:
        page = await store.read(EVERYONES, session_id, before)
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
    store: Store, kept: Kept, sizes: list[int], expected: list[int]
) -> None:
    session = await store.create(None)
    said = await kept.say(session.id, sizes)
    await kept.say((await store.create(None)).id, [10])
    pages = await whole(store, session.id)
    assert [len(page) for page in pages] == expected
    assert [each for page in reversed(pages) for each in page] == said


async def test_there_is_nothing_before_the_first_message(store: Store, kept: Kept) -> None:
    session = await store.create(None)
    first, *_ = await kept.say(session.id, [10, 10])
    page = await store.read(EVERYONES, session.id, MessageId(first))
    assert page is not None
    assert (page.messages, page.earlier) == ((), False)


async def test_before_a_message_that_is_not_of_this_session_there_is_no_page(store: Store, kept: Kept) -> None:
    session, other = await store.create(None), await store.create(None)
    await kept.say(session.id, [10])
    (foreign,) = await kept.say(other.id, [10])
    for unknown in (foreign, NOBODYS, "x", "'; --"):
        with pytest.raises(UnknownMessage):
            await store.read(EVERYONES, session.id, MessageId(unknown))
    assert await store.read(EVERYONES, SessionId("nobody's"), MessageId(foreign)) is None


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
async def test_a_history_is_the_newest_that_fits(store: Store, kept: Kept, sizes: list[int], expected: int) -> None:
    session = await store.create(None)
    said = await kept.say(session.id, sizes)
    history = await store.history(session.id)
    assert [message.id for message in history.messages] == said[len(said) - expected :]


async def test_what_does_not_exist_has_no_history(store: Store) -> None:
    assert await store.history(SessionId("nobody's")) == History(UNSET, ())


# --- what is kept -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ODD_TEXTS.values(), ids=ODD_TEXTS.keys())
async def test_pitfall_59_a_text_comes_back_as_it_was_posted(store: Store, text: str) -> None:
    session = await store.create(None)
    await store.post(
        EVERYONES,
        session.id,
        NewMessage(
            (
                TextPart(text),
                TextPart(""),
            )
        ),
    )
    now = await store.read(EVERYONES, session.id)
    assert now is not None
    assert now.messages[0].parts == ({"type": "text", "text": text}, {"type": "text", "text": ""})


# --- a database that is away ------------------------------------------------------------------------------------------


async def test_what_is_away_is_told_as_that(dsn: str) -> None:
    async with postgres_pool(dsn) as pool:
        store, messages = PostgresSessions(Database(pool)), PostgresMessages(Database(pool))
        session = await store.create(None)
        await messages.post(EVERYONES, session.id, HI)
    for call in (
        store.create(None),
        store.read(EVERYONES, session.id),
        store.newest(EVERYONES, 10, None),
        store.change(EVERYONES, session.id, SessionChange()),
        store.delete(EVERYONES, session.id),
        store.due(10, 0),
        store.remove(session.id),
        store.forget_keys(100),
        messages.history(session.id),
        messages.post(EVERYONES, session.id, HI),
        messages.answer_again(EVERYONES, session.id, None),
        messages.taken_by(session.id, MessageId("m")),
        messages.current(EVERYONES, session.id),
        messages.open(None, "chat"),
        messages.find(None, "chat"),
    ):
        with pytest.raises(DatabaseUnavailable):
            await call
