"""What every test can ask for: real stores, a database of its own, and a Redis 7 where one answers."""

import asyncio
import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import pytest
import structlog
from redis.exceptions import RedisError

from service.adapters.postgres import Database
from service.adapters.postgres_schema import apply_schema
from service.adapters.rabbit import asking, open_line
from service.adapters.redis_client import connect
from service.model.errors import BrokerUnavailable
from service.wiring import StoreUrls
from tests.sessions.databases import emptied, own_database, server_url

pytest_plugins = ["tests.whole"]

REPOSITORY = Path(__file__).parents[1]
_numbers = itertools.count(1)
_Result = TypeVar("_Result")


@pytest.fixture(autouse=True, scope="session")
def _no_settings_from_outside() -> None:
    """The tests say what is set; what the machine sets is looked at only by name (`TEST_PLAYHEAD_REDIS_URL`)."""
    for name in [name for name in os.environ if name.startswith("PLAYHEAD_")]:
        del os.environ[name]
    # Ignored where the tests run in the background: what is started here is to mind them.
    for number, usual in ((signal.SIGHUP, signal.SIG_DFL), (signal.SIGINT, signal.default_int_handler)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, usual)
    # A hundred processes are started: each would compile the whole service for itself.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


@pytest.fixture(autouse=True, scope="session")
def _plain_tracebacks() -> None:
    """A failed test shows what was logged; drawing frames and colours around a traceback takes half a second."""
    *steps, _ = structlog.get_config()["processors"]
    structlog.configure([*steps, structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)])


@pytest.fixture(scope="session")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreUrls]:
    """The embedded Valkey and PostgreSQL, held by a process of their own for the whole run."""
    data = tmp_path_factory.mktemp("stores")
    holder = subprocess.Popen(
        [sys.executable, "-m", "tests.adapters.embedded.serve", str(data)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=REPOSITORY,
        start_new_session=True,
    )
    assert holder.stdout is not None
    assert holder.stdin is not None
    urls = json.loads(holder.stdout.readline() or b"{}")
    assert "error" not in urls, urls
    _run(_template(urls["postgres"]))
    yield StoreUrls(urls["redis"], urls["postgres"])
    holder.stdin.close()
    holder.wait(30)
    holder.stdout.close()


def _run(coroutine: Coroutine[Any, Any, _Result]) -> _Result:
    """Run in a thread: a fixture of the whole run may be asked for while a test's loop runs."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, coroutine).result()


async def _template(dsn: str) -> None:
    await _administer(dsn, "CREATE DATABASE template_playhead")
    await apply_schema(_named(dsn, "template_playhead"))


async def _administer(dsn: str, statement: str) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute(statement)
    await connection.close()


def _named(dsn: str, database: str) -> str:
    return dsn.replace("/postgres?", f"/{database}?")


@pytest.fixture
async def postgres_url(stores: StoreUrls) -> AsyncIterator[str]:
    """A database of this test's own, with the schema."""
    name = f"test_{next(_numbers)}"
    await _administer(stores.postgres, f"CREATE DATABASE {name} TEMPLATE template_playhead")
    yield _named(stores.postgres, name)
    await _administer(stores.postgres, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="module")
def postgres_server(request: pytest.FixtureRequest) -> str:
    """Where to administer the embedded PostgreSQL. A suite that runs over others too has one of its own."""
    return server_url("embedded", request)


@pytest.fixture(scope="module")
def dsn(postgres_server: str) -> Iterator[str]:
    """A database of this module's own on that server, with the schema."""
    with own_database(postgres_server) as url:
        yield url


@pytest.fixture
async def database(dsn: str) -> AsyncIterator[Database]:
    """That one, emptied for each test."""
    async with emptied(dsn) as opened:
        yield opened


@pytest.fixture
def redis_url(stores: StoreUrls) -> str:
    """The embedded Valkey; tests tell each other's keys apart by their task ids."""
    return stores.redis


@pytest.fixture(scope="session")
def redis7_url() -> str:
    """A Redis that is not ours, its database 9; skips where none answers. Another one by TEST_PLAYHEAD_REDIS_URL."""
    url = os.environ.get("TEST_PLAYHEAD_REDIS_URL", "redis://127.0.0.1:6379/9")
    try:
        version = _run(_redis_version(url))
    except (RedisError, OSError):
        pytest.skip("no Redis 7 answers at TEST_PLAYHEAD_REDIS_URL or 127.0.0.1:6379")
    if int(version.partition(".")[0]) < 7:
        pytest.skip(f"the Redis that answers has version {version}")
    return url


@pytest.fixture(scope="session")
def amqp_url() -> str:
    """A RabbitMQ that is not ours; skips where none answers (`make services` sees to one).

    Exchanges and queues have names of the test's own, and are removed behind it.
    """
    url = os.environ.get("TEST_PLAYHEAD_AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/")
    try:
        _run(_ask_rabbit(url))
    except BrokerUnavailable as error:
        cause = type(error.__cause__).__name__
        pytest.skip(f"no RabbitMQ answers at TEST_PLAYHEAD_AMQP_URL or 127.0.0.1:5672: {cause}")
    return url


async def _ask_rabbit(url: str) -> None:
    async with asking(5):
        line = await open_line(url, confirms=True)
    await line.close()


async def _redis_version(url: str) -> str:
    redis = connect(url)
    try:
        return str((await redis.info("server"))["redis_version"])
    finally:
        await redis.aclose()
