"""The doors on a real socket, over real stores: one service a module; and a worker where a test wants one."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import uuid4

import pytest_asyncio
from aiohttp import web

from service.http.app import serving
from service.model.caller import EVERYONES
from service.model.events import TextPart
from service.model.ids import OwnerId, TaskId
from service.model.operation import Executor, NewOperation, Operation
from service.model.session import NewMessage
from service.model.task import Claim
from service.settings import Settings
from service.wiring import House, StoreUrls, open_app, open_house


@dataclass(frozen=True)
class Doors:
    """A service that answers at `url`."""

    url: str
    house: House
    settings: Settings


def settings_for(redis: str, postgres: str, **more: object) -> Settings:
    return Settings(_env_file=None, redis_url=redis, postgres_url=postgres, heartbeat_seconds=1, **more)


@asynccontextmanager
async def served(app: web.Application, settings: Settings) -> AsyncIterator[str]:
    """These routes on a free port; its URL."""
    async with serving(app, "127.0.0.1", 0, write_timeout_seconds=settings.write_timeout_seconds) as url:
        yield url


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def doors(stores: StoreUrls, dsn: str) -> AsyncIterator[Doors]:
    settings = settings_for(stores.redis, dsn)
    async with open_house(settings) as house, open_app(house, settings) as app, served(app, settings) as url:
        yield Doors(url, house, settings)


async def running(house: House, owner: str = "local") -> Claim:
    """A turn that runs, in a session of its own, and goes on running."""
    session = await house.sessions.create(OwnerId(owner))
    posted = await house.messages.post(EVERYONES, session.id, NewMessage((TextPart("Hi"),)))
    return await claimed(house, posted.task_id)


async def claimed(house: House, task_id: TaskId) -> Claim:
    """This task, which is due, for as long as tests take; others that are stay so."""
    claims = {claim.task.id: claim for claim in await house.queue.claim(1000, 3600)}
    claim = claims.pop(task_id)
    await house.queue.renew(list(claims.values()), 0)
    return claim


async def begun(
    house: House,
    tool: str = "render",
    executor: Executor = "remote",
    *,
    owner: str = "local",
    deadline_seconds: float | None = 3600,
    claim: Claim | None = None,
) -> Operation:
    """An operation of a turn that runs: this one, or one of its own."""
    claim = claim or await running(house, owner)
    new = NewOperation(f"call-{uuid4()}", tool, executor, {"n": 1}, deadline_seconds)
    return (await house.desk.begin(claim, new)).operation
