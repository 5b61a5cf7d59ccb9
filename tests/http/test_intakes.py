"""What readiness says of messages that come by themselves."""

import time
from datetime import UTC, datetime

import orjson
from aiohttp.test_utils import make_mocked_request

from service.http.health import HealthRoutes
from service.model.intake import IntakeState
from service.registry.watch import StoreWatch
from service.wiring import StoreUrls, open_completions, open_house
from tests.http.conftest import settings_for
from tests.processes import free_port

AT = datetime(2026, 1, 1, 12, tzinfo=UTC)
SAID = "2026-01-01T12:00:00.000Z"


async def readiness(health: HealthRoutes) -> tuple[int, dict[str, object]]:
    answer = await health.ready(make_mocked_request("GET", "/readyz"))
    assert isinstance(answer.body, bytes)
    return answer.status, orjson.loads(answer.body)


async def test_it_says_what_they_wait_for_and_the_process_is_ready_all_the_same() -> None:
    async def ping() -> None: ...

    health = HealthRoutes(StoreWatch({"redis": ping}, lambda: AT, time.monotonic))
    assert "intakes" not in (await readiness(health))[1]
    state = IntakeState(None, None, 0, "rabbitmq", AT, None)
    health.show_intake("amqp", lambda: state)
    status, told = await readiness(health)
    waiting = {"status": "waiting", "in_hand": 0, "waits_for": "rabbitmq", "since": SAID}
    assert (status, told["status"], told["intakes"]) == (200, "ok", {"amqp": waiting})
    state = IntakeState(AT, AT, 3, None, None, None)
    status, told = await readiness(health)
    well = {"status": "ok", "in_hand": 3, "attached_since": SAID, "last_delivery": SAID}
    assert (status, told["intakes"]) == (200, {"amqp": well})


async def test_those_of_a_broker_that_is_away_wait_and_are_counted(stores: StoreUrls, dsn: str) -> None:
    async with (
        open_house(settings_for(stores.redis, dsn)) as house,
        open_completions(house, f"amqp://u:p@127.0.0.1:{free_port()}/") as completions,
    ):
        _, told = await readiness(house.health)
        assert "'status': 'waiting'" in str(told["intakes"])
        assert completions.state().waits_for == "rabbitmq"
        assert b"playhead_amqp_connected 0.0" in house.metrics.render()
