"""Whole services on real stores, a user of them, a browser: started once, all in one event loop, as the tests are."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio
from playwright.async_api import Browser

from service.wiring import StoreUrls
from tests.acceptance.browser import chromium
from tests.acceptance.client import Client, client_of
from tests.processes import Service, serve


@pytest.fixture
def store_settings(redis_url: str, postgres_url: str) -> dict[str, str]:
    """Settings of every process that shares this test's stores."""
    return {"REDIS_URL": redis_url, "POSTGRES_URL": postgres_url}


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared_settings(stores: StoreUrls) -> AsyncIterator[dict[str, str]]:
    """The same for services that several tests use, each with sessions of its own."""
    connection = await asyncpg.connect(stores.postgres)
    await connection.execute("CREATE DATABASE acceptance TEMPLATE template_playhead")
    yield {"REDIS_URL": stores.redis, "POSTGRES_URL": stores.postgres.replace("/postgres?", "/acceptance?")}
    await connection.execute("DROP DATABASE acceptance WITH (FORCE)")
    await connection.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def services(
    tmp_path_factory: pytest.TempPathFactory, shared_settings: dict[str, str]
) -> AsyncIterator[tuple[Service, Service, Service]]:
    """All that are shared, on one store, started at the same time."""
    logs: Path = tmp_path_factory.mktemp("services")
    beating, impatient = {"HEARTBEAT_SECONDS": "0.3"}, {"WRITE_TIMEOUT_SECONDS": "2"}
    async with AsyncExitStack() as stack:
        yield await asyncio.gather(
            stack.enter_async_context(serve(logs / "plain", shared_settings)),
            stack.enter_async_context(serve(logs / "beating", shared_settings | beating)),
            stack.enter_async_context(serve(logs / "impatient", shared_settings | impatient, "--only", "http")),
        )


@pytest.fixture
def service(services: tuple[Service, Service, Service]) -> Service:
    """A service with no other settings than its stores."""
    return services[0]


@pytest.fixture
def beating_service(services: tuple[Service, Service, Service]) -> Service:
    """One that is never silent for long."""
    return services[1]


@pytest.fixture
def impatient_service(services: tuple[Service, Service, Service]) -> Service:
    """One that only serves readers, so that its memory is theirs, and gives up soon on those that take nothing."""
    return services[2]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser | None]:
    """Chromium, if there is one: tests that also show something without it skip at their end."""
    async with chromium() as launched:
        yield launched


@pytest_asyncio.fixture(loop_scope="session")
async def client(service: Service) -> AsyncIterator[Client]:
    """A user of `service`."""
    async with client_of(service) as made:
        yield made
