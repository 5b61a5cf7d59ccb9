"""The doors on a real socket, over real stores: one service a module; and a worker where a test wants one."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest_asyncio
from aiohttp import web

from service.http.app import serving
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
