"""A house for each test, over one database a module."""

from collections.abc import AsyncIterator

import pytest

from tests.agent.house import House
from tests.sessions.databases import emptied


@pytest.fixture
async def house(dsn: str) -> AsyncIterator[House]:
    async with emptied(dsn) as database:
        yield House(database)
