"""One bench for all tests of this room: each leaves it with everything running and nothing wrong."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.faults.bench import Bench, open_bench
from tests.faults.checks import i6_the_archive_has_what_the_log_had


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def whole_bench(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    """Started when the first test asks for it."""
    async with open_bench(tmp_path_factory.mktemp("bench")) as bench:
        yield bench
        await i6_the_archive_has_what_the_log_had(bench.truth)


@pytest_asyncio.fixture(loop_scope="session")
async def bench(whole_bench: Bench) -> AsyncIterator[Bench]:
    """The bench, whole again after each test; and no process has made a mistake."""
    before = len(whole_bench.complaints())
    yield whole_bench
    await whole_bench.restored()
    assert whole_bench.complaints()[before:] == []
