"""The ports `MessageStore` and `ChatStore`, and how a turn's end empties the mailbox, wherever all that is kept."""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest

from service.adapters.postgres import Database, postgres_pool
from service.adapters.postgres_messages import PostgresMessages
from service.adapters.postgres_sessions import PostgresSessions
from service.adapters.postgres_tasks import PostgresTasks
from service.model.caller import EVERYONES
from service.model.errors import KeyReused, MailboxFull, MessageExists, NotFound, SessionBusy, TakenOver, UnknownMessage
from service.model.events import CallMetadata, TextPart, Usage
from service.model.ids import MessageId, OwnerId, SessionId
from service.model.session import MAILBOX_MESSAGES, IdempotencyKey, NewMessage, SessionEntry
from service.model.step import CompletedStep
from service.model.task import Claim, End
from service.model.trace import TraceParent
from tests.contracts.conversations import Kept, Store
from tests.sessions.databases import until_somebody_waits
from tests.sessions.endings import bounced, ended_with

NOBODYS = SessionId("nobody's")
STEP = CompletedStep(
    1, ({"type": "text", "text": "Let me \0 see.", "state": "done"},), CallMetadata("tool-calls", Usage(1, 2), 3, 4)
)


@pytest.fixture
def store(kept: Kept) -> Store:
    return kept.store


def said(text: str = "Hi", message_id: str | None = None) -> NewMessage:
    return NewMessage((TextPart(text),), None if message_id is None else MessageId(message_id))


def key(name: str = "k", body: bytes = b"b") -> IdempotencyKey:
    return IdempotencyKey(name, body)


async def running(store: Store, kept: Kept, text: str = "Hi") -> tuple[SessionEntry, Claim]:
    """A session whose turn runs."""
    session = await store.create(None)
    await store.post(EVERYONES, session.id, said(text))
    (claim,) = await kept.queue.claim(1, 60)
    return session, claim


async def texts(store: Store, session: SessionEntry) -> tuple[list[str], list[str]]:
    """What the conversation holds, and what its mailbox does."""
    now = await store.read(EVERYONES, session.id)
    assert now is not None
    return [m.parts[-1]["text"] for m in now.messages], [m.parts[-1]["text"] for m in now.pending]


# --- the mailbox ------------------------------------------------------------------------------------------------------


async def test_what_is_posted_while_a_turn_runs_waits_in_its_order(store: Store, kept: Kept) -> None:
    session, claim = await running(store, kept)
    posted = [await store.post(EVERYONES, session.id, said(f"{n}")) for n in range(3)]
    assert {(p.task_id, p.status) for p in posted} == {(claim.task.id, "pending")}
    assert await texts(store, session) == (["Hi"], ["0", "1", "2"])


async def test_pitfall_44_what_waits_has_no_place_in_the_conversation_until_a_turn_takes_it(
    store: Store, kept: Kept
) -> None:
    """It was posted before the answer, and stands behind it: nothing comes between a turn's messages."""
    session, claim = await running(store, kept)
    await store.post(EVERYONES, session.id, said("waits"))
    assert [m.parts[-1]["text"] for m in (await store.history(session.id)).messages] == ["Hi"]
    await kept.queue.end(claim, ended_with(claim, "There."))
    said_then = [m.parts[-1]["text"] for m in (await store.history(session.id)).messages]
    assert said_then == ["Hi", "There.", "waits"]


@pytest.mark.parametrize("how", ["succeeded", "bounced"])
async def test_a_turns_end_begins_the_next_one_with_the_oldest_message(store: Store, kept: Kept, how: str) -> None:
    session, claim = await running(store, kept)
    posted = [await store.post(EVERYONES, session.id, said(f"{n}")) for n in range(3)]
    ended = await kept.queue.end(claim, ended_with(claim, "There.") if how == "succeeded" else bounced(claim))
    assert ended.next_is_due
    (following,) = await kept.queue.claim(9, 60)
    assert (following.task.input_id, following.task.session_id) == (posted[0].message_id, session.id)
    assert await texts(store, session) == ((["Hi", "There."] if how == "succeeded" else []) + ["0"], ["1", "2"])


async def test_a_repeated_end_begins_no_second_turn(store: Store, kept: Kept) -> None:
    session, claim = await running(store, kept)
    for n in range(2):
        await store.post(EVERYONES, session.id, said(f"{n}"))
    end = ended_with(claim, "There.")
    assert [(await kept.queue.end(claim, end)).next_is_due for _ in range(2)] == [True, False]
    assert (await kept.counts())["tasks"] == 2


async def test_a_turn_that_is_cancelled_before_it_ran_begins_the_next_one(store: Store, kept: Kept) -> None:
    session = await store.create(None)
    first = await store.post(EVERYONES, session.id, said("first"))
    await store.post(EVERYONES, session.id, said("second"))
    await kept.queue.cancel(EVERYONES, first.task_id)
    (claim,) = await kept.queue.claim(9, 60)
    end = End("cancelled", ended_with(claim, "").ending, claim.task.usage, claim.task.created_at)
    assert (await kept.queue.end(claim, end)).next_is_due
    assert await texts(store, session) == (["first", "second"], [])


async def test_an_empty_mailbox_begins_nothing(store: Store, kept: Kept) -> None:
    _, claim = await running(store, kept)
    assert not (await kept.queue.end(claim, ended_with(claim, "There."))).next_is_due
    assert await kept.queue.claim(9, 60) == []


async def test_a_full_mailbox_refuses_and_keeps_what_it_has(store: Store, kept: Kept) -> None:
    session, claim = await running(store, kept)
    for n in range(MAILBOX_MESSAGES):
        await store.post(EVERYONES, session.id, said(f"{n}"))
    before = await kept.counts()
    with pytest.raises(MailboxFull):
        await store.post(EVERYONES, session.id, said("one more"), key())
    assert await kept.counts() == before
    await kept.queue.end(claim, ended_with(claim, "There."))
    assert (await store.post(EVERYONES, session.id, said("one more"), key())).status == "pending"


async def test_pitfall_42_a_message_that_arrives_as_the_turn_ends_is_not_stranded(
    dsn: str, kept: Kept, store: Store, database: Database
) -> None:
    """The end waits for the session's row, which a post holds: what that one left is there when it goes on."""
    session, claim = await running(store, kept)
    async with AsyncExitStack() as stack:
        pool = await stack.enter_async_context(postgres_pool(dsn))
        connection = await stack.enter_async_context(database.connection())
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        async with connection.transaction():
            await connection.fetch("SELECT FROM sessions WHERE id = $1 FOR UPDATE", session.id)
            ending = tasks.create_task(PostgresTasks(Database(pool)).end(claim, ended_with(claim, "There.")))
            await until_somebody_waits(database)
            await connection.fetch(
                "INSERT INTO pending_messages (session_id, id, parts) VALUES ($1, 'late', '[]')", session.id
            )
    assert ending.result().next_is_due
    (following,) = await kept.queue.claim(9, 60)
    assert following.task.input_id == "late"


async def test_pitfall_42_posts_and_ends_at_once_strand_nothing(dsn: str, kept: Kept) -> None:
    async with AsyncExitStack() as stack:
        pools = [await stack.enter_async_context(postgres_pool(dsn, connections=4)) for _ in range(3)]
        session = await kept.store.create(None)
        left, accepted = [5, 5], []

        async def post(client: int) -> None:
            store = PostgresMessages(Database(pools[client]))
            while left[client]:
                posted = await store.post(EVERYONES, session.id, said(f"{client}.{5 - left[client]}"))
                accepted.append(posted.message_id)
                left[client] -= 1

        async def work() -> list[str]:
            queue, done = PostgresTasks(Database(pools[2])), []
            while len(done) < 10:
                for claim in await queue.claim(4, 60):
                    done.append(claim.task.input_id)
                    await queue.end(claim, ended_with(claim, "."))
            return done

        async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
            done = tasks.create_task(work())
            posting = [tasks.create_task(post(client)) for client in range(2)]
            await asyncio.gather(*posting)
    assert sorted(done.result()) == sorted(accepted)
    said_in_order = [t for t in (await texts(kept.store, session))[0] if t != "."]
    assert [t for t in said_in_order if t[0] == "0"] == [f"0.{n}" for n in range(5)]
    assert [t for t in said_in_order if t[0] == "1"] == [f"1.{n}" for n in range(5)]


# --- between two steps ------------------------------------------------------------------------------------------------


async def test_what_waits_is_taken_into_the_conversation_in_its_order(store: Store, kept: Kept) -> None:
    session, claim = await running(store, kept)
    posted = [await store.post(EVERYONES, session.id, said(f"{n} \0")) for n in range(MAILBOX_MESSAGES)]
    before = await store.read(EVERYONES, session.id)
    promoted = await kept.queue.promote(claim, STEP, ())
    assert [each.id for each in promoted] == [each.message_id for each in posted]
    assert [each.parts[0]["text"] for each in promoted] == [f"{n} \0" for n in range(MAILBOX_MESSAGES)]
    assert await texts(store, session) == (["Hi", *(f"{n} \0" for n in range(MAILBOX_MESSAGES))], [])
    after = await store.read(EVERYONES, session.id)
    assert before is not None
    assert after is not None
    assert {m.task_id for m in after.messages} == {claim.task.id}
    assert {m.role for m in after.messages} == {"user"}
    assert [m.created_at for m in after.messages[1:]] == [m.created_at for m in before.pending]
    assert await store.taken_by(session.id, posted[0].message_id) == claim.task.id
    assert not (await kept.queue.end(claim, ended_with(claim, "There."))).next_is_due


async def test_what_the_log_has_is_not_answered_again_and_all_else_is(store: Store, kept: Kept) -> None:
    session, claim = await running(store, kept)
    assert await kept.queue.promote(claim, STEP, ()) == []
    one, two = [(await store.post(EVERYONES, session.id, said(f"{n}"))).message_id for n in (1, 2)]
    for _ in range(2):
        assert [each.id for each in await kept.queue.promote(claim, STEP, ())] == [one, two]
    three = (await store.post(EVERYONES, session.id, said("3"))).message_id
    assert [each.id for each in await kept.queue.promote(claim, STEP, (one,))] == [two, three]
    assert await kept.queue.promote(claim, STEP, (one, two, three)) == []
    assert (await texts(store, session))[0] == ["Hi", "1", "2", "3"]


async def test_steps_are_kept_with_what_was_taken_in_behind_each_until_the_turn_has_ended(
    store: Store, kept: Kept
) -> None:
    session, claim = await running(store, kept)
    ids = []
    for n in (1, 2, 3):
        ids += [(await store.post(EVERYONES, session.id, said(f"{n}.{m}"))).message_id for m in (1, 2)]
        await kept.queue.promote(claim, replace(STEP, number=n), ids[:-2])
    late = (await store.post(EVERYONES, session.id, said("late"))).message_id
    await kept.queue.promote(claim, CompletedStep(3, (), STEP.call), ids)  # once more, by whoever took it over
    steps = await kept.queue.steps(claim.task.id, 0)
    assert [each.step for each in steps] == [replace(STEP, number=n) for n in (1, 2, 3)]
    assert [[promoted.id for promoted in each.promoted] for each in steps] == [ids[:2], ids[2:4], [*ids[4:], late]]
    assert steps[1].promoted[0].parts == ({"type": "text", "text": "2.1"},)
    assert list(await kept.queue.steps(claim.task.id, 2)) == list(steps[2:])
    assert list(await kept.queue.steps(claim.task.id, 3)) == []
    await kept.queue.end(claim, ended_with(claim, "There."))
    assert list(await kept.queue.steps(claim.task.id, 0)) == []


async def test_a_call_that_must_not_run_twice_is_begun_by_one_holder(store: Store, kept: Kept) -> None:
    session = await store.create(None)
    await store.post(EVERYONES, session.id, said())
    (claim,) = await kept.queue.claim(1, 60)
    assert [await kept.queue.begin_call(claim, "c1") for _ in range(2)] == [True, True]  # its first reply was lost
    again = await kept.queue.retake(claim, 60)
    assert [await kept.queue.begin_call(again, call) for call in ("c1", "c2", "c2")] == [False, True, True]
    with pytest.raises(TakenOver):
        await kept.queue.begin_call(claim, "c3")
    await kept.queue.end(again, ended_with(again, "There."))
    with pytest.raises(TakenOver):
        await kept.queue.begin_call(again, "c3")


async def test_the_mailbox_of_one_session_is_taken_and_no_other(store: Store, kept: Kept) -> None:
    session, claim = await running(store, kept)
    other, _ = await running(store, kept)
    for each in (session, other):
        await store.post(EVERYONES, each.id, said("more"))
    assert len(await kept.queue.promote(claim, STEP, ())) == 1
    assert await texts(store, other) == (["Hi"], ["more"])


async def test_of_a_message_that_is_answered_again_only_what_this_turn_took_is_answered(
    store: Store, kept: Kept
) -> None:
    session, claim = await running(store, kept)
    await store.post(EVERYONES, session.id, said("once", "u2"))
    await kept.queue.promote(claim, STEP, ())
    await kept.queue.end(claim, ended_with(claim, "There."))
    await store.answer_again(EVERYONES, session.id, claim.task.input_id)
    (again,) = await kept.queue.claim(1, 60)
    assert await kept.queue.promote(again, STEP, ()) == []
    await store.post(EVERYONES, session.id, said("twice", "u2"))
    assert [each.parts[0]["text"] for each in await kept.queue.promote(again, STEP, ())] == ["twice"]
    assert (await texts(store, session))[0] == ["Hi", "twice"]


@pytest.mark.parametrize("how", ["taken over", "ended", "queued"])
async def test_pitfall_22_who_does_not_hold_a_running_turn_takes_nothing(store: Store, kept: Kept, how: str) -> None:
    session = await store.create(None)
    first = await store.post(EVERYONES, session.id, said())
    if how == "queued":
        await kept.queue.cancel(EVERYONES, first.task_id)
    (claim,) = await kept.queue.claim(1, 0)
    await store.post(EVERYONES, session.id, said("more"))
    if how == "taken over":
        await kept.queue.claim(1, 60)
    elif how == "ended":
        await store.post(EVERYONES, session.id, said("still more"))
        await kept.queue.end(claim, ended_with(claim, "There."))
    before = await kept.everything(), await texts(store, session)
    with pytest.raises(TakenOver):
        await kept.queue.promote(claim, STEP, ())
    assert (await kept.everything(), await texts(store, session)) == before


async def test_lost_attempts_count_again_from_each_step(store: Store, kept: Kept) -> None:
    session = await store.create(None)
    await store.post(EVERYONES, session.id, said())
    claims = [(await kept.queue.claim(1, 0))[0] for _ in range(3)]
    assert [claim.lost_attempts for claim in claims] == [0, 1, 2]
    await kept.queue.promote(claims[-1], STEP, ())
    assert [(await kept.queue.claim(1, 0))[0].lost_attempts for _ in range(2)] == [1, 2]


async def test_pitfall_42_a_message_that_arrives_as_others_are_taken_is_in_front_of_or_behind_them(
    dsn: str, kept: Kept, store: Store, database: Database
) -> None:
    """Taking waits for the session's row, which a post holds: what that one left is taken."""
    session, claim = await running(store, kept)
    async with AsyncExitStack() as stack:
        pool = await stack.enter_async_context(postgres_pool(dsn))
        connection = await stack.enter_async_context(database.connection())
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        async with connection.transaction():
            await connection.fetch("SELECT FROM sessions WHERE id = $1 FOR UPDATE", session.id)
            taking = tasks.create_task(PostgresTasks(Database(pool)).promote(claim, STEP, ()))
            await until_somebody_waits(database)
            await connection.fetch(
                "INSERT INTO pending_messages (session_id, id, parts) VALUES ($1, 'late', '[]')", session.id
            )
    assert [each.id for each in taking.result()] == ["late"]


# --- keys and ids -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["accepted", "pending"])
async def test_pitfall_43_the_same_key_is_answered_alike(store: Store, kept: Kept, status: str) -> None:
    session = await store.create(None) if status == "accepted" else (await running(store, kept))[0]
    first = await store.post(EVERYONES, session.id, said(), key())
    before = await kept.counts()
    assert first.status == status
    assert await store.post(EVERYONES, session.id, said(), key()) == first
    assert await kept.counts() == before


async def test_a_key_with_another_body_is_refused(store: Store, kept: Kept) -> None:
    session = await store.create(None)
    await store.post(EVERYONES, session.id, said(), key())
    before = await kept.counts()
    with pytest.raises(KeyReused):
        await store.post(EVERYONES, session.id, said("Bye"), key(body=b"other"))
    assert await kept.counts() == before


async def test_keys_of_other_sessions_and_other_names_are_other_keys(store: Store) -> None:
    one, other = await store.create(None), await store.create(None)
    posted = [
        await store.post(EVERYONES, one.id, said(), key()),
        await store.post(EVERYONES, one.id, said(), key("another")),
        await store.post(EVERYONES, other.id, said(), key()),
    ]
    assert len({p.message_id for p in posted}) == 3


async def test_a_bounced_message_takes_its_key_with_it(store: Store, kept: Kept) -> None:
    session = await store.create(None)
    first = await store.post(EVERYONES, session.id, said(), key())
    (claim,) = await kept.queue.claim(1, 60)
    await kept.queue.end(claim, bounced(claim))
    again = await store.post(EVERYONES, session.id, said(), key())
    assert again.task_id != first.task_id


async def test_pitfall_43_twenty_posts_with_one_key_at_once_are_one_message(dsn: str, kept: Kept) -> None:
    async with postgres_pool(dsn, connections=10) as pool:
        session = await kept.store.create(None)
        store = PostgresMessages(Database(pool))
        posted = await asyncio.gather(*(store.post(EVERYONES, session.id, said(), key()) for _ in range(20)))
    assert len(set(posted)) == 1
    assert (await kept.counts())["messages"] == 1


async def test_a_session_is_made_once_for_a_key(store: Store, kept: Kept) -> None:
    first = await store.create(None, key=key())
    assert await store.create(None, key=key()) == first
    assert (await store.create(OwnerId("ann"), key=key())).id != first.id
    with pytest.raises(KeyReused):
        await store.create(None, key=key(body=b"other"))
    assert (await kept.counts())["sessions"] == 2


async def test_ten_creations_with_one_key_at_once_are_one_session(dsn: str, kept: Kept) -> None:
    async with postgres_pool(dsn, connections=10) as pool:
        store = PostgresSessions(Database(pool))
        made = await asyncio.gather(*(store.create(None, key=key()) for _ in range(10)))
    assert len({entry.id for entry in made}) == 1
    assert (await kept.counts())["sessions"] == 1


@pytest.mark.parametrize("is_running", [True, False], ids=["running", "queued"])
async def test_the_id_of_the_answer_to_come_is_refused(store: Store, kept: Kept, is_running: bool) -> None:
    """A reader of the log knows it. Where a message had it, the turn could not store its answer, nor ever end."""
    session = await store.create(None)
    first = await store.post(EVERYONES, session.id, said())
    claims = await kept.queue.claim(1, 60) if is_running else []
    task = await kept.queue.read(EVERYONES, first.task_id)
    assert task is not None
    for _ in range(2):
        with pytest.raises(MessageExists):
            await store.post(EVERYONES, session.id, said("Mine", task.answer_id), key())
    (claim,) = claims or await kept.queue.claim(1, 60)
    await kept.queue.end(claim, ended_with(claim, "Yes?"))
    assert await texts(store, session) == (["Hi", "Yes?"], [])


async def test_an_id_that_is_there_is_refused(store: Store, kept: Kept) -> None:
    session = await store.create(None)
    posted = await store.post(EVERYONES, session.id, said(message_id="mine"))
    assert posted.message_id == "mine"
    await store.post(EVERYONES, session.id, said(message_id="waits"))
    before = await kept.counts()
    for taken in ("mine", "waits"):
        with pytest.raises(MessageExists):
            await store.post(EVERYONES, session.id, said("Bye", taken))
    assert await kept.counts() == before


# --- once more, and otherwise -----------------------------------------------------------------------------------------


async def conversation(store: Store, kept: Kept) -> SessionEntry:
    """Two questions with their answers."""
    session = await store.create(None)
    for n in (1, 2):
        await store.post(EVERYONES, session.id, said(f"question {n}", f"q{n}"))
        (claim,) = await kept.queue.claim(1, 60)
        await kept.queue.end(claim, ended_with(claim, f"answer {n}"))
    return session


async def test_the_newest_message_is_answered_again(store: Store, kept: Kept) -> None:
    session = await conversation(store, kept)
    posted = await store.answer_again(EVERYONES, session.id, None)
    assert posted is not None
    assert posted.message_id == "q2"
    assert await texts(store, session) == (["question 1", "answer 1", "question 2"], [])
    (claim,) = await kept.queue.claim(9, 60)
    assert (claim.task.id, claim.task.input_id) == (posted.task_id, "q2")
    assert [m.id for m in (await store.history(session.id)).messages][-1] == "q2"
    await kept.queue.end(claim, ended_with(claim, "better"))
    assert (await texts(store, session))[0][-1] == "better"


async def test_a_message_is_said_otherwise_and_what_came_after_it_is_set_aside(store: Store, kept: Kept) -> None:
    session = await conversation(store, kept)
    posted = await store.answer_again(EVERYONES, session.id, MessageId("q1"), said("other words"))
    assert posted is not None
    assert await texts(store, session) == (["other words"], [])
    (claim,) = await kept.queue.claim(9, 60)
    assert claim.task.input_id == "q1"
    assert [m.parts[0]["text"] for m in (await store.history(session.id)).messages] == ["other words"]
    assert await store.taken_by(session.id, MessageId("q1")) == posted.task_id
    page = await store.read(EVERYONES, session.id)
    assert page is not None
    assert not page.earlier


@pytest.mark.parametrize("words", [None, "other words"], ids=["the same words", "other words"])
async def test_a_turn_that_gives_its_message_back_leaves_the_conversation_as_it_was(
    store: Store, kept: Kept, words: str | None
) -> None:
    """The message was there before it, and answered; so were the keys of what had been posted."""
    session = await store.create(None)
    for n in (1, 2):
        posted = await store.post(EVERYONES, session.id, said(f"question {n}", f"q{n}"), key(f"k{n}"))
        (claim,) = await kept.queue.claim(9, 60)
        await kept.queue.end(claim, ended_with(claim, f"answer {n}"))
    before = await store.read(EVERYONES, session.id)
    await store.answer_again(EVERYONES, session.id, MessageId("q2"), None if words is None else said(words))
    (first,) = await kept.queue.claim(9, 60)
    await kept.queue.end(first, ended_with(first, "answer 3"))
    await store.answer_again(EVERYONES, session.id, MessageId("q1"), None if words is None else said(words))
    await store.post(EVERYONES, session.id, said("waits"))
    (claim,) = await kept.queue.claim(9, 60)
    await kept.queue.end(claim, bounced(claim))
    assert before is not None
    said_before = [message.parts[-1]["text"] for message in before.messages[:2]]
    then = [*said_before, words or "question 2", "answer 3", "waits"]
    assert await texts(store, session) == (then, [])
    assert [m.parts[-1]["text"] for m in (await store.history(session.id)).messages] == then
    assert await store.post(EVERYONES, session.id, said("question 2", "q2"), key("k2")) == posted


async def test_what_is_not_there_is_not_answered_again(store: Store, kept: Kept) -> None:
    session = await conversation(store, kept)
    now = await store.read(EVERYONES, session.id)
    assert now is not None
    for other in (MessageId("q3"), now.messages[1].id):  # none, and an answer
        assert await store.answer_again(EVERYONES, session.id, other, said("other words")) is None
    assert await store.answer_again(EVERYONES, (await store.create(None)).id, None) is None
    with pytest.raises(NotFound):
        await store.answer_again(EVERYONES, NOBODYS, None)
    assert len((await texts(store, session))[0]) == 4


async def test_nothing_is_answered_again_while_a_turn_is_there(store: Store, kept: Kept) -> None:
    session, _ = await running(store, kept)
    for instead in (None, said("other words")):
        with pytest.raises(SessionBusy):
            await store.answer_again(EVERYONES, session.id, None, instead)
    assert await texts(store, session) == (["Hi"], [])


# --- who takes a message, and what runs -------------------------------------------------------------------------------


async def test_it_is_known_which_task_takes_a_message(store: Store, kept: Kept) -> None:
    session, claim = await running(store, kept)
    waiting = await store.post(EVERYONES, session.id, said())
    assert await store.taken_by(session.id, claim.task.input_id) == claim.task.id
    assert await store.taken_by(session.id, waiting.message_id) is None
    await kept.queue.end(claim, ended_with(claim, "There."))
    taken = await store.taken_by(session.id, waiting.message_id)
    (following,) = await kept.queue.claim(9, 60)
    assert taken == following.task.id
    await kept.queue.end(following, bounced(following))
    assert await store.taken_by(session.id, waiting.message_id) == following.task.id  # its log says why it came back
    for unknown in ((session.id, MessageId("none")), (NOBODYS, waiting.message_id)):
        with pytest.raises(UnknownMessage):
            await store.taken_by(*unknown)


async def test_what_runs_goes_before_what_is_queued(store: Store, kept: Kept) -> None:
    session = await store.create(None)
    assert await store.current(EVERYONES, session.id) is None
    posted = await store.post(EVERYONES, session.id, said())
    assert await store.current(EVERYONES, session.id) == posted.task_id
    (claim,) = await kept.queue.claim(1, 60)
    await kept.second_turn_queued(claim)
    assert await store.current(EVERYONES, session.id) == posted.task_id
    with pytest.raises(NotFound):
        await store.current(EVERYONES, NOBODYS)


# --- chats ------------------------------------------------------------------------------------------------------------


async def test_a_chat_is_made_once_and_found_by_its_owner_alone(store: Store) -> None:
    ann, bob = OwnerId("ann"), OwnerId("bob")
    assert await store.find(ann, "chat") is None
    made = await store.open(ann, "chat")
    assert await store.open(ann, "chat") == await store.find(ann, "chat") == made
    assert await store.find(bob, "chat") is None
    assert await store.find(None, "chat") is None
    assert len({made, await store.open(bob, "chat"), await store.open(None, "chat")}) == 3


async def test_a_session_is_a_chat_by_its_own_id_too(store: Store) -> None:
    session = await store.create(OwnerId("ann"))
    assert await store.find(OwnerId("ann"), session.id) == session.id
    assert await store.find(OwnerId("bob"), session.id) is None
    assert await store.find(None, session.id) is None


async def test_a_deleted_chat_leaves_its_name_to_another(store: Store) -> None:
    first = await store.open(None, "chat")
    await store.delete(EVERYONES, first)
    assert await store.find(None, "chat") is None
    assert await store.open(None, "chat") != first


async def test_a_chat_that_many_open_at_once_is_one(dsn: str) -> None:
    async with postgres_pool(dsn, connections=10) as pool:
        store = PostgresMessages(Database(pool))
        assert len(set(await asyncio.gather(*(store.open(OwnerId("ann"), "chat") for _ in range(20))))) == 1


# --- traces -----------------------------------------------------------------------------------------------------------

TRACES = [TraceParent(f"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b{n}-01") for n in range(4)]


async def test_whoever_claims_a_turn_knows_in_which_span_its_message_was_accepted(store: Store, kept: Kept) -> None:
    """Also where it waited in the mailbox, and where a message is answered again, in the same words or others."""
    session = await store.create(None)

    async def claimed() -> TraceParent | None:
        (claim,) = await kept.queue.claim(1, 60)
        again = await kept.queue.retake(claim, 60)
        assert again.trace == claim.trace
        await kept.queue.end(again, ended_with(again, "There."))
        await kept.queue.close(again)
        return claim.trace

    await store.post(EVERYONES, session.id, said("0"), None, TRACES[0])
    await store.post(EVERYONES, session.id, said("1"), None, TRACES[1])
    assert [await claimed(), await claimed()] == TRACES[:2]
    await store.answer_again(EVERYONES, session.id, None, None, TRACES[2])
    assert await claimed() == TRACES[2]
    await store.answer_again(EVERYONES, session.id, None, said("2"), TRACES[3])
    assert await claimed() == TRACES[3]
    await store.post(EVERYONES, session.id, said("3"))
    assert await claimed() is None
