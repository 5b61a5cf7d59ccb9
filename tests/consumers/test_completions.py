"""Completions over a real RabbitMQ: every message has its effect once, or is where an operator finds it."""

import asyncio
from collections.abc import AsyncIterator, Callable, MutableMapping, Sequence
from dataclasses import replace
from typing import Any

import orjson
import pytest
import structlog

from consumers.completions import DRAIN_SECONDS, Label
from service.adapters.rabbit import DELIVERY_LIMIT, Names, Outlet
from service.adapters.rabbit_intake import CAREFUL_DELIVERIES, PREFETCH
from service.model.caller import EVERYONES
from service.model.completion import MAX_COMPLETION_BYTES
from service.model.intake import DeadReason
from service.model.operation import Completion, Failed, Progress, Succeeded
from tests.adapters.rabbits import SOON, Rabbit, rabbit_at
from tests.consumers.ledger import Clock, Ledger, door, new_id, success
from tests.faults.link import link_to
from tests.faults.wire import BlackHole, OneWay, Refuse, Reset, Way


@pytest.fixture
async def rabbit(amqp_url: str) -> AsyncIterator[Rabbit]:
    async with rabbit_at(amqp_url) as rabbit:
        yield rabbit


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


NOTHING = {"ready": 0, "parked": 0, "dead": 0}


def logged(logs: Sequence[MutableMapping[str, Any]], event: str, *, times: int = 1) -> Callable[[], bool]:
    """Whether this was logged so often."""
    return lambda: sum(entry["event"] == event for entry in logs) >= times


# --- what becomes of each ---------------------------------------------------------------------------------------------


async def test_each_is_taken_and_forgotten_by_the_broker(rabbit: Rabbit, ledger: Ledger) -> None:
    (one,) = ledger.pending()
    failure = {"operation_id": one, "success": False, "error": "No.", "error_type": "patch_error"}
    async with door(rabbit.intake(), ledger) as running:
        for body, label in (
            ({"operation_id": one, "progress": {"percent": 3}}, "noted"),
            ({"operation_id": one, "success": True, "result": ""}, "accepted"),
            ({"operation_id": one, "success": True, "result": ""}, "duplicate"),
            (failure, "conflicting"),
        ):
            before = list(running.labels)
            await rabbit.publish(orjson.dumps(body))
            await running.noted(*before, label)  # type: ignore[arg-type]
        await running.leave()
    await rabbit.has(**NOTHING)
    assert ledger.operations == {one: Succeeded("")}
    progress, first, _, last = ledger.asked
    assert isinstance(progress, Progress)
    assert progress.progress == {"percent": 3}
    assert isinstance(first, Completion)
    assert (first.delivery.door, first.reach, first.follow_up) == ("amqp", EVERYONES, True)
    assert isinstance(last, Completion)
    assert last.outcome == Failed("patch_error", "No.")


@pytest.mark.parametrize("result", [{}, "", None, 0, False, [], "\x00", {"a": "ü"}])
async def test_pitfall_36_any_json_is_a_result_as_it_came(rabbit: Rabbit, ledger: Ledger, result: object) -> None:
    (one,) = ledger.pending()
    await rabbit.publish(success(one, result))  # type: ignore[arg-type]
    async with door(rabbit.intake(), ledger) as running:
        await running.noted("accepted")
    assert ledger.operations == {one: Succeeded(result)}  # type: ignore[arg-type]


DEAD: list[tuple[bytes, DeadReason]] = [
    (b"", "unreadable"),
    (b"{", "unreadable"),
    (b"\xff\xfe", "unreadable"),
    (b"[]", "unreadable"),
    (b"null", "unreadable"),
    (orjson.dumps({"operation_id": new_id(), "success": "yes"}), "unreadable"),
    (orjson.dumps({"operation_id": new_id(), "sucess": True}), "unreadable"),
    (orjson.dumps({"operation_id": new_id(), "success": True, "error": "x"}), "unreadable"),
    (orjson.dumps({"operation_id": 7, "success": True}), "unreadable"),
    (b"[" * 100_000, "unreadable"),
    (success(new_id(), "x" * MAX_COMPLETION_BYTES), "too_large"),
    (b'{"success": true}', "no_operation_id"),
    (success("no-such-name"), "unknown"),
    (success("\x00"), "unreadable"),
    (success(new_id(), task_id="\x00"), "unreadable"),
]


async def test_pitfall_27_what_cannot_be_read_is_a_dead_letter_and_never_acked_away(
    rabbit: Rabbit, ledger: Ledger
) -> None:
    (one,) = ledger.pending()
    async with door(rabbit.intake(), ledger) as running:
        for body, reason in DEAD:
            await rabbit.publish(body, message_id=reason, app_id="tester", headers={"theirs": 1})
        await rabbit.publish(success(one))
        await running.noted(*["dead" for _ in DEAD], "accepted")
    await rabbit.has(ready=0, parked=0, dead=len(DEAD))
    letters = await rabbit.letters.list(100)
    told = sorted((letter.size, letter.reason, letter.message_id, letter.app_id) for letter in letters)
    assert told == sorted((len(body), reason, reason, "tester") for body, reason in DEAD)
    assert all(letter.detail for letter in letters)
    assert len(ledger.asked) == 1


async def test_what_contradicts_itself_is_a_dead_letter(rabbit: Rabbit, ledger: Ledger) -> None:
    (one,) = ledger.pending()
    await rabbit.publish(success(one, task_id=new_id()))
    async with door(rabbit.intake(), ledger) as running:
        await running.noted("dead")
    (letter,) = await rabbit.letters.list(10)
    assert (letter.reason, letter.detail) == ("refused", "The task is not the operation's own.")
    assert letter.died_at is not None
    assert letter.died_at.timestamp() * 1000 == rabbit.clock_ms


@pytest.mark.parametrize(
    ("app_id", "by"),
    [(None, "amqp"), ("", "amqp"), ("billing 2", "billing 2"), ("a\r\nb\x00ü", "a??b??"), ("x" * 100, "x" * 64)],
)
async def test_who_sent_it_is_told_in_plain_letters(
    rabbit: Rabbit, ledger: Ledger, app_id: str | None, by: str
) -> None:
    (one,) = ledger.pending()
    await rabbit.publish(success(one), app_id=app_id, message_id="a\x00b" if app_id else "m-1")
    async with door(rabbit.intake(), ledger) as running:
        await running.noted("accepted")
    assert (ledger.asked[0].delivery.by, ledger.asked[0].delivery.id) == (by, None if app_id else "m-1")


async def test_pitfall_33_twice_at_once_by_two_consumers_is_one_effect(rabbit: Rabbit, ledger: Ledger) -> None:
    (one,) = ledger.pending()
    ledger.holds_before = asyncio.Event()
    async with (
        door(rabbit.intake(prefetch=1), ledger) as first,
        door(rabbit.intake(prefetch=1), ledger) as second,
    ):
        await rabbit.publish(success(one), success(one))
        await ledger.has(lambda: len(ledger.asked) == 2)
        ledger.holds_before.set()
        await first.leave()
        await second.leave()
        assert sorted(first.labels + second.labels) == ["accepted", "duplicate"]
    assert ledger.taken == [one]


# --- too early --------------------------------------------------------------------------------------------------------


async def test_pitfall_31_a_completion_that_overtakes_its_operation_is_matched(rabbit: Rabbit, ledger: Ledger) -> None:
    one, clock = new_id(), Clock()
    await rabbit.publish(success(one, 1), message_id="m", app_id="a", headers={"theirs": 1}, correlation_id="c")
    async with door(rabbit.intake(), ledger, clock) as running:
        await ledger.has(lambda: len(ledger.asked) >= 3)
        clock.at += 299
        ledger.operations[one] = None
        await ledger.has(lambda: ledger.taken == [one])
        await running.leave()
        assert set(running.labels) == {"parked", "accepted"}
    await rabbit.has(**NOTHING)
    assert {(report.delivery.by, report.delivery.id) for report in ledger.asked} == {("a", "m")}


async def test_one_whose_operation_never_comes_is_a_dead_letter_in_the_end(rabbit: Rabbit, ledger: Ledger) -> None:
    one, clock = new_id(), Clock()
    await rabbit.publish(success(one, 1), message_id="m")
    async with door(rabbit.intake(), ledger, clock) as running:
        await ledger.has(lambda: len(ledger.asked) >= 2)
        clock.at += 300
        await rabbit.has(ready=0, parked=0, dead=1)
        await running.leave()
        assert (set(running.labels[:-1]), running.labels[-1]) == ({"parked"}, "dead")
    (letter,) = await rabbit.letters.list(10)
    assert (letter.reason, letter.message_id, letter.body) == ("unknown", "m", success(one, 1))


@pytest.mark.parametrize("forged", ["soon", -1, 2**62, True, bytearray(b"\xff"), {"a": 1}, 1.5])
async def test_when_it_was_first_seen_is_not_believed_blindly(rabbit: Rabbit, ledger: Ledger, forged: object) -> None:
    clock = Clock()
    await rabbit.publish(success(new_id()), headers={"x-playhead-first-seen": forged})
    async with door(rabbit.intake(), ledger, clock) as running:
        await ledger.has(lambda: len(ledger.asked) >= 2)
        clock.at += 300
        await rabbit.has(ready=0, parked=0, dead=1)
        await running.leave()
        assert (set(running.labels[:-1]), running.labels[-1]) == ({"parked"}, "dead")


# --- what goes wrong inside -------------------------------------------------------------------------------------------


async def test_pitfall_38_a_poisoned_one_holds_up_nobody_dies_and_is_taken_once_the_mistake_is_mended(
    rabbit: Rabbit, ledger: Ledger
) -> None:
    poison, *good = ledger.pending(1001)
    ledger.breaks_on = lambda report: report.operation_id == poison
    bodies = [success(one, 1) for one in good]
    await rabbit.publish(*bodies[:500], success(poison, 1), *bodies[500:])
    with structlog.testing.capture_logs() as logs:
        async with door(rabbit.intake(), ledger) as running:
            await running.noted(*["accepted" for _ in good], *["returned" for _ in range(DELIVERY_LIMIT + 1)])
            await rabbit.has(ready=0, parked=0, dead=1)
            (letter,) = await rabbit.letters.list(10)
            assert (letter.reason, letter.body) == ("failed", success(poison, 1))
            assert letter.died_at is not None
            ledger.breaks_on = lambda _: False
            assert await rabbit.letters.redrive("ann", reason="failed") == 1
            await ledger.has(lambda: len(ledger.taken) == 1001)
    await rabbit.has(**NOTHING)
    assert sum(report.operation_id == poison for report in ledger.asked) == DELIVERY_LIMIT + 2
    assert sum(entry["event"] == "completion_failed" for entry in logs) == DELIVERY_LIMIT + 1


async def test_pitfall_29_no_number_of_errors_ends_the_consumer(rabbit: Rabbit, ledger: Ledger) -> None:
    *bad, good = ledger.pending(31)
    ledger.breaks_on = lambda report: report.operation_id != good
    await rabbit.publish(*map(success, bad))
    async with door(rabbit.intake(), ledger) as running:
        await rabbit.has(ready=0, parked=0, dead=30)
        await rabbit.publish(success(good))
        await ledger.has(lambda: ledger.taken == [good])
        assert running.completions.state().waits_for is None


async def test_pitfall_75_an_outage_of_the_database_costs_no_message_and_no_delivery(
    rabbit: Rabbit, ledger: Ledger
) -> None:
    ids = ledger.pending(500)
    ledger.is_away = True
    await rabbit.publish(*(success(one, 1) for one in ids))
    with structlog.testing.capture_logs() as logs:
        async with door(rabbit.intake(), ledger) as running:
            await ledger.has(lambda: len(ledger.asked) >= 30 * PREFETCH)  # three times the broker's limit
            state = running.completions.state()
            assert (state.waits_for, state.in_hand, state.waits_since) == ("postgres", PREFETCH, running.clock.now())
            ledger.is_away = False
            await ledger.has(lambda: len(ledger.taken) == 500)
            await running.noted(*["accepted" for _ in ids])
            assert running.completions.state().waits_for is None
    assert set(ledger.taken) == set(ids)
    await rabbit.has(**NOTHING)
    told = [entry["event"] for entry in logs if entry["event"].startswith("completions_")]
    assert told == ["completions_wait", "completions_go_on"]


async def test_what_is_held_for_too_long_goes_to_the_end_of_the_queue_as_a_new_message(
    rabbit: Rabbit, ledger: Ledger
) -> None:
    """The broker would take a consumer that holds it for longer for dead, and count that."""
    (one,) = ledger.pending()
    ledger.is_away = True
    await rabbit.publish(success(one), message_id="m")
    async with door(rabbit.intake(), ledger, hold_seconds=0.03) as running:
        await ledger.has(lambda: running.labels.count("renewed") >= DELIVERY_LIMIT + 2)
        ledger.is_away = False
        await ledger.has(lambda: ledger.taken == [one])
    await rabbit.has(**NOTHING)


@pytest.mark.parametrize("where", ["before", "behind"])
async def test_pitfall_28_one_whose_consumer_dies_beside_its_effect_comes_again(
    rabbit: Rabbit, ledger: Ledger, where: str
) -> None:
    (one,) = ledger.pending()
    held = asyncio.Event()
    ledger.holds_before, ledger.holds_behind = (held, None) if where == "before" else (None, held)
    await rabbit.publish(success(one))
    async with door(rabbit.intake(), ledger) as first:
        await ledger.has(lambda: len(ledger.asked) == 1 and (where == "before" or ledger.taken == [one]))
        await first.die()
        assert first.labels == []
    await rabbit.has(ready=1, parked=0, dead=0)
    ledger.holds_before = ledger.holds_behind = None
    async with door(rabbit.intake(), ledger) as second:
        await second.noted("accepted" if where == "before" else "duplicate")
    assert ledger.taken == [one]
    await rabbit.has(**NOTHING)


# --- stopping ---------------------------------------------------------------------------------------------------------


async def test_a_stop_takes_nothing_more_and_finishes_what_is_in_hand(rabbit: Rabbit, ledger: Ledger) -> None:
    first, second, third = ledger.pending(3)
    ledger.holds_before = asyncio.Event()
    async with door(rabbit.intake(), ledger) as running:
        await rabbit.publish(success(first), success(second))
        await ledger.has(lambda: len(ledger.asked) == 2)
        running.stop.set()
        await running.intake.stop_taking()
        await rabbit.publish(success(third))
        await rabbit.has(ready=1, parked=0, dead=0)
        ledger.holds_before.set()
        await running.leave()
        assert running.labels == ["accepted", "accepted"]
    assert set(ledger.taken) == {first, second}
    await rabbit.has(ready=1, parked=0, dead=0)


async def test_a_stop_does_not_wait_for_a_store_and_leaves_it_all_to_the_broker(rabbit: Rabbit, ledger: Ledger) -> None:
    ids = ledger.pending(100)
    ledger.is_away = True
    await rabbit.publish(*map(success, ids))
    async with door(rabbit.intake(), ledger, store_waits=(DRAIN_SECONDS * 2,)) as running:  # type: ignore[arg-type]
        await ledger.has(lambda: len(ledger.asked) == PREFETCH)
        async with asyncio.timeout(DRAIN_SECONDS / 2):
            await running.leave()
        assert running.labels == []
    await rabbit.has(ready=100, parked=0, dead=0)


async def test_what_a_store_refuses_behind_a_stop_goes_back(rabbit: Rabbit, ledger: Ledger) -> None:
    (one,) = ledger.pending()
    ledger.holds_before = asyncio.Event()
    await rabbit.publish(success(one))
    async with door(rabbit.intake(), ledger) as running:
        await ledger.has(lambda: len(ledger.asked) == 1)
        running.stop.set()
        await running.intake.stop_taking()
        ledger.is_away = True
        ledger.holds_before.set()
        await running.leave()
        assert running.labels == []
    await rabbit.has(ready=1, parked=0, dead=0)


# --- a broker that is away --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [Reset(), BlackHole(), OneWay(Way.UP), OneWay(Way.DOWN)], ids=repr)
async def test_pitfall_39_a_connection_that_is_cut_or_half_open_is_replaced(
    rabbit: Rabbit, ledger: Ledger, fault: Reset | BlackHole | OneWay
) -> None:
    before, during = ledger.pending(2)
    async with (
        link_to(rabbit.address) as link,
        door(rabbit.intake(rabbit.through(link.port)), ledger) as running,
    ):
        await rabbit.publish(success(before))
        await running.noted("accepted")
        assert running.completions.state().attached_since is not None
        with structlog.testing.capture_logs() as logs:
            link.break_by(fault)
            await rabbit.publish(success(during))
            await rabbit.until(logged(logs, "amqp_waits"))
            link.cut()
            link.heal()
            await rabbit.until(logged(logs, "amqp_attached"))
            await ledger.has(lambda: ledger.taken == [before, during])
            await rabbit.has(**NOTHING)
            await running.leave()
        assert [entry["event"] for entry in logs if entry["event"].startswith("amqp_")] == [
            "amqp_waits",
            "amqp_attached",
        ]
    await rabbit.has(**NOTHING)


async def test_a_broker_that_is_away_at_the_start_is_waited_for(rabbit: Rabbit, ledger: Ledger) -> None:
    (one,) = ledger.pending()
    await rabbit.publish(success(one))
    async with link_to(rabbit.address) as link:
        link.break_by(Refuse())
        with structlog.testing.capture_logs() as logs:
            async with door(rabbit.intake(rabbit.through(link.port)), ledger) as running:
                await rabbit.until(logged(logs, "amqp_waits"))
                state = running.completions.state()
                assert (state.attached_since, state.waits_for) == (None, "rabbitmq")
                link.heal()
                await running.noted("accepted")
                state = running.completions.state()
                assert (state.waits_for, state.last_delivery) == (None, running.clock.now())


async def test_what_is_in_hand_when_the_connection_is_lost_is_let_go_and_comes_again(
    rabbit: Rabbit, ledger: Ledger
) -> None:
    (one,) = ledger.pending()
    ledger.holds_behind = asyncio.Event()
    await rabbit.publish(success(one))
    async with (
        link_to(rabbit.address) as link,
        door(rabbit.intake(rabbit.through(link.port)), ledger) as running,
    ):
        await ledger.has(lambda: ledger.taken == [one])
        link.break_by(Reset())
        await ledger.has(lambda: len(ledger.asked) == 2)
        assert running.completions.state().in_hand == 1
        ledger.holds_behind.set()
        await running.noted("duplicate")
    await rabbit.has(**NOTHING)


async def test_queues_that_somebody_removed_are_made_again(rabbit: Rabbit, ledger: Ledger) -> None:
    (one,) = ledger.pending()
    async with door(rabbit.intake(), ledger) as running:
        with structlog.testing.capture_logs() as logs:
            await rabbit.until(logged(logs, "amqp_attached"))
            await rabbit.line.raw.queue_delete(rabbit.names.queue)
            await rabbit.until(logged(logs, "amqp_attached", times=2))
        await rabbit.publish(success(one))
        await running.noted("accepted")


async def test_one_that_cannot_be_decoded_takes_no_other_along(rabbit: Rabbit, ledger: Ledger) -> None:
    """The library ends its connection over it; what else is in hand then comes back once more each time."""

    class Latin(str):
        def encode(self, *_: object) -> bytes:  # type: ignore[override]
            return b"\xff\xfe"

    ids = ledger.pending(100)
    bodies = [success(one) for one in ids]
    await rabbit.publish(*bodies[:50])
    await rabbit.publish(b"?", content_encoding=Latin("x"))
    await rabbit.publish(*bodies[50:])
    ledger.holds_behind = asyncio.Event()
    async with door(rabbit.intake(), ledger):
        ledger.holds_behind.set()
        await ledger.has(lambda: len(ledger.taken) == 100)
        await rabbit.has(ready=0, parked=0, dead=1)


async def test_care_behind_a_connection_that_was_lost_is_over_soon(rabbit: Rabbit, ledger: Ledger) -> None:
    careful, more = ledger.pending(CAREFUL_DELIVERIES), ledger.pending(PREFETCH + 1)
    async with (
        link_to(rabbit.address) as link,
        door(rabbit.intake(rabbit.through(link.port)), ledger) as running,
    ):
        with structlog.testing.capture_logs() as logs:
            await rabbit.until(logged(logs, "amqp_attached"))
            link.break_by(Reset())
            await rabbit.until(logged(logs, "amqp_attached", times=2))
        ledger.holds_before = asyncio.Event()
        await rabbit.publish(*map(success, careful))
        await ledger.has(lambda: len(ledger.asked) == 1)
        assert running.completions.state().in_hand == 1
        ledger.holds_before.set()
        await ledger.has(lambda: len(ledger.taken) == CAREFUL_DELIVERIES)
        ledger.holds_before = asyncio.Event()
        await rabbit.publish(*map(success, more))
        # One more, where the consumer before, which takes one at a time, had it before it was cancelled.
        await ledger.has(lambda: len(ledger.asked) >= CAREFUL_DELIVERIES + PREFETCH)
        ledger.holds_before.set()
        await ledger.has(lambda: len(ledger.taken) == CAREFUL_DELIVERIES + PREFETCH + 1)


async def test_pitfall_56_what_cannot_be_published_is_kept_in_hand_and_holds_up_nobody(
    rabbit: Rabbit, ledger: Ledger
) -> None:
    """A dead letter goes over another connection than what is acknowledged: the broker may have blocked that."""
    (one,) = ledger.pending()
    async with link_to(rabbit.address) as link:
        rabbit.outlet, usual = Outlet(rabbit.through(link.port), rabbit.names, replace(SOON, call=0.2)), rabbit.outlet
        async with door(rabbit.intake(), ledger) as running:
            rabbit.outlet, away = usual, rabbit.outlet
            await rabbit.publish(b"one that opens the line")
            await running.noted("dead")
            link.break_by(BlackHole())
            await rabbit.publish(b"{", success(one))
            await running.noted("dead", "accepted")
            await rabbit.until(lambda: running.completions.state().waits_for == "rabbitmq")
            link.heal()
            await running.noted("dead", "accepted", "dead")
        await away.close()
    letters = await rabbit.letters.list(10)
    assert {letter.body for letter in letters} == {b"one that opens the line", b"{"}


async def test_one_that_cannot_be_copied_is_left_to_the_broker_which_can(rabbit: Rabbit, ledger: Ledger) -> None:
    """As with headers of a kind that the library reads and does not write."""
    intake = rabbit.intake()

    class Broken:
        async def send(self, *_: object) -> None:
            raise TypeError

    intake._outlet = Broken()  # type: ignore[assignment]
    await rabbit.publish(b"{")
    labels: list[Label] = ["returned" for _ in range(DELIVERY_LIMIT + 1)]
    async with door(intake, ledger) as running:
        await running.noted(*labels)
        await rabbit.has(ready=0, parked=0, dead=1)


def test_the_names_are_those_that_services_know() -> None:
    names = Names()
    assert (names.exchange, names.queue, names.dead_exchange) == (
        "chat_operations",
        "chat_operation_complete",
        "chat_operations.dead",
    )
