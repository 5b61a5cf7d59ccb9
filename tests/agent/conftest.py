"""A house for each test, over one database a module."""

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.agent.house import House
from tests.sessions.databases import emptied, own_database, server_url


@pytest.fixture(scope="module")
def dsn(request: pytest.FixtureRequest) -> Iterator[str]:
    with own_database(server_url("embedded", request)) as url:
        yield url


@pytest.fixture
async def house(dsn: str) -> AsyncIterator[House]:
    async with emptied(dsn) as database:
        yield House(database)
