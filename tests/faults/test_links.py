"""Every fault of the proxy on every link, under running turns and their readers."""

import pytest

from tests.faults.battery import in_company
from tests.faults.bench import Bench
from tests.faults.crowd import CONVERSATIONS, crowd_at
from tests.faults.footprint import footprint, i9_it_is_back

pytestmark = pytest.mark.asyncio(loop_scope="session")

FAULT_SECONDS = 2.0


@pytest.mark.timeout(180)
async def test_every_fault_on_every_link_costs_time_and_nothing_else(bench: Bench) -> None:
    async with crowd_at(bench) as crowd:
        await crowd.has_finished(CONVERSATIONS)  # what a crowd costs, they have had
    before = {member.name: footprint(member) for member in bench.members}
    async with crowd_at(bench) as crowd:
        for trouble in in_company(bench):
            await crowd.suffer(trouble, FAULT_SECONDS)
    assert crowd.interrupted > 0
    for member in bench.members:
        await i9_it_is_back(member, before[member.name])
