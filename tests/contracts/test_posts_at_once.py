"""Several clients post to several sessions while several workers take turns, promote amid them, end and give back."""

import asyncio
from collections import Counter
from contextlib import suppress
from random import Random

import pytest

from service.adapters.postgres import Database, postgres_pool
from service.adapters.postgres_messages import PostgresMessages
from service.adapters.postgres_sessions import PostgresSessions
from service.adapters.postgres_tasks import PostgresTasks
from service.model.caller import EVERYONES
from service.model.errors import MailboxFull
from service.model.events import CallMetadata, TextPart, Usage
from service.model.ids import MessageId, SessionId
from service.model.session import NewMessage
from service.model.step import CompletedStep
from service.model.task import Claim
from tests.sessions.endings import bounced, ended_with

CLIENTS, WORKERS, SESSIONS, POSTS = 4, 4, 3, 40
CALL = CallMetadata("tool-calls", Usage(1, 1), 1, 1)


class Town:
    """What was posted, and what became of it as its workers know."""

    def __init__(self, database: Database, sessions: list[SessionId], seed: int) -> None:
        self.messages, self.queue = PostgresMessages(database), PostgresTasks(database)
        self.sessions = sessions
        self.random = Random(seed)
        self.accepted: list[tuple[SessionId, MessageId]] = []
        self.given_back: set[tuple[SessionId, MessageId]] = set()
        self.answered: Counter[tuple[SessionId, MessageId]] = Counter()
        self.posting = CLIENTS

    async def client(self, number: int) -> None:
        for n in range(POSTS):
            session_id, message_id = self.random.choice(self.sessions), MessageId(f"{number}-{n}")
            with suppress(MailboxFull):
                await self.messages.post(EVERYONES, session_id, NewMessage((TextPart(message_id),), message_id))
                self.accepted.append((session_id, message_id))
        self.posting -= 1

    async def worker(self) -> None:
        """Until nobody posts any more and nothing is open."""
        while self.posting or await self._something_is_open():
            for claim in await self.queue.claim(2, 60):
                await self._turn(claim)

    async def _something_is_open(self) -> bool:
        backlog = await self.queue.backlog()
        return backlog.queued + backlog.running > 0

    async def _turn(self, claim: Claim) -> None:
        session_id, taken = claim.task.session_id, [claim.task.input_id]
        steps = self.random.randrange(3)
        for number in range(1, steps + 1):
            promoted = await self.queue.promote(claim, CompletedStep(number, (), CALL), taken)
            taken += [each.id for each in promoted]
        if steps == 0 and self.random.random() < 0.3:
            await self.queue.end(claim, bounced(claim))
            self.given_back.add((session_id, claim.task.input_id))
        else:
            await self.queue.end(claim, ended_with(claim, "There."))
            self.answered.update((session_id, each) for each in taken)
        await self.queue.close(claim)


@pytest.mark.parametrize("seed", range(2))
async def test_pitfall_42_of_what_many_post_nothing_is_lost_doubled_or_stranded_and_its_order_is_kept(
    dsn: str, seed: int
) -> None:
    async with postgres_pool(dsn, connections=CLIENTS + WORKERS) as pool:
        database = Database(pool)
        sessions = [(await PostgresSessions(database).create(None)).id for _ in range(SESSIONS)]
        town = Town(database, sessions, seed)
        async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
            for number in range(CLIENTS):
                tasks.create_task(town.client(number))
            for _ in range(WORKERS):
                tasks.create_task(town.worker())
        said = {
            session_id: [each.id for each in (await town.messages.history(session_id)).messages if each.role == "user"]
            for session_id in sessions
        }
        waiting = await database.fetch("SELECT FROM pending_messages")
    kept = [(session_id, message_id) for session_id, ids in said.items() for message_id in ids]
    assert waiting == []
    assert len(town.accepted) > POSTS
    assert sorted([*kept, *town.given_back]) == sorted(town.accepted)
    assert town.answered == Counter(kept)
    for ids in said.values():
        for number in range(CLIENTS):
            own = [int(each.partition("-")[2]) for each in ids if each.startswith(f"{number}-")]
            assert own == sorted(own)
