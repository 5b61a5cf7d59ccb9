"""What may happen to the core, drawn anew for each seed. Each ends with all that must be true then."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from service.model.caller import EVERYONES
from service.model.ids import MessageId, SessionId, TaskId
from service.model.task import Task
from tests.races.core import HEARTBEAT_SECONDS, LEASE_SECONDS, PARTS, Core, Parts, Serving, Working
from tests.races.wire import Process, at_once, spare
from tests.races.world import SOON_SECONDS

Scenario = Callable[[Core], None]


def take_over(core: Core) -> None:
    """A worker dies, or is paused for long enough to lose its task, amid a turn; another takes over."""
    core.open_door()
    core.author.pieces = 5
    first = core.work()
    core.read(core.post())
    draw, chance = core.random.uniform, core.random.random
    if chance() < 0.3:
        core.be_troubled(0.05, 0.05, until=draw(0, 2))
    when = draw(0, 0.5)
    if chance() < 0.3:
        core.at(when, first.kill)
    elif chance() < 0.4:
        _strike(core, [first], Blow("append", has_happened=False, dies=False, share=0.4))
    else:
        _pause(core, first, when)
        if chance() < 0.2:
            core.at(when, first.stop.set)
    core.at(_soon_or_late(core), core.work)
    if chance() < 0.1:
        core.at_take_over(0.5, _kill_all, core)
    core.settle()
    assert {row.task.status for row in core.database.tasks.values()} == {"succeeded"}


def _kill_all(core: Core) -> None:
    """Whoever has just taken over, too; then others come."""
    for worker in core.workers:
        worker.kill()
    core.at(core.loop.now + LEASE_SECONDS, core.work)


def _soon_or_late(core: Core) -> float:
    """When another worker begins: before there is anything to take over, or about when there is."""
    return core.random.choice((0.0, 0.8, 1.0, 1.2)) * LEASE_SECONDS


def _pause(core: Core, first: Working, when: float) -> None:
    core.at(when, first.pause)
    _wake(core, first, when)


def _wake(core: Core, process: Process, paused_at: float) -> None:
    """Some time later; or just as another takes over, when it is the worst time."""
    if core.random.random() < 0.3:
        core.at(paused_at + core.random.uniform(0.2, 1.8) * LEASE_SECONDS, process.wake)
    else:
        core.at_take_over(core.random.choice((0.02, 0.3)), process.wake)


def hand_over(core: Core) -> None:
    """Readers are cut, and come back elsewhere with their position; hints are lost, connections break, doors die."""
    doors = [core.open_door(), core.open_door()]
    task_id = core.post()
    core.author.pieces = 5
    draw, chance = core.random.uniform, core.random.random
    for _ in range(3):
        core.at(draw(0, 0.6), _come_and_go, core, task_id)
    for _ in range(core.random.randrange(3)):
        core.at(draw(0, 0.6), core.break_hints, chance() < 0.5)
    is_deaf = chance() < 0.2
    if is_deaf:
        core.at(draw(0, 0.6), _lose_hints, core)
    if chance() < 0.3:
        core.at(draw(0, 0.6), _leave_door, core, doors[0])
    core.work()
    core.settle()
    if not is_deaf:
        soon = max(core.store.closed_at, core.last_disturbed) + SOON_SECONDS
        assert all(reader.ended_at <= soon for reader in core.readers), "a reader is behind though it could know better"


def _come_and_go(core: Core, task_id: TaskId) -> None:
    reader = core.read(task_id)
    for _ in range(core.random.randrange(3)):
        core.at(core.loop.now + core.random.uniform(0, 0.4), core.come_back, reader)


def _lose_hints(core: Core) -> None:
    """In silence: seen with a heartbeat."""
    core.hints.lose_next += 1
    core.disturbed_until(core.loop.now + HEARTBEAT_SECONDS)


def _leave_door(core: Core, door: Serving) -> None:
    """It dies; whoever read there comes back elsewhere."""
    core.doors.remove(door)
    door.kill()
    for reader in core.readers:
        if reader.door is door:
            core.come_back(reader)


def lost_tail(core: Core) -> None:
    """The log store comes back without its newest events, or without any, amid a turn or after it; workers may die."""
    core.open_door()
    first = core.work()
    task_id = core.post()
    reader = core.read(task_id)
    draw, chance = core.random.uniform, core.random.random
    when = draw(0, 0.45)
    core.at(when, core.lose_tail, task_id)
    if chance() < 0.2:
        core.at(draw(0, 0.8), core.lose_tail, task_id)
    if chance() < 0.3:
        core.at(when + draw(-0.1, 0.1), first.kill)
        core.at(_soon_or_late(core), core.work)
    elif chance() < 0.3:
        _pause(core, first, when)
        core.at(_soon_or_late(core), core.work)
    if chance() < 0.3:
        core.at(draw(0, 0.8), core.come_back, reader)
    core.settle()
    assert core.database.tasks[task_id].task.status == "succeeded"
    core.read(task_id)  # whatever there is still, it has an end
    core.settle()


ENDING_CALLS = ("append", "end", "finish", "close")


def finish(core: Core) -> None:
    """Whoever ends a task dies or is paused around one of the last writes, or their answers are lost; all may sweep."""
    core.open_door()
    workers = [core.work()]
    core.at(core.random.choice((0.0, 0.8)) * LEASE_SECONDS, core.work)
    task_id = core.post()
    core.read(task_id)
    chance, choice = core.random.random, core.random.choice
    is_struck = chance() < 0.7
    if chance() < 0.5:
        core.be_troubled(0.05, 0.25, core.random.uniform(0.5, 1.5), ENDING_CALLS)
    if is_struck:
        verb = choice(("end", "end", "finish", "close"))
        _strike(core, workers, Blow(verb, has_happened=choice((False, True)), dies=choice((False, True))))
    if chance() < 0.3:
        core.when_closed(task_id, _post_again, core, core.session_of(task_id))
    core.settle()
    rows = core.database.tasks.values()
    assert {row.task.status for row in rows} == {"succeeded"}
    if not is_struck:
        assert {row.epoch for row in rows} == {1}, "a task changed hands though nothing was the matter"


def _post_again(core: Core, session_id: SessionId) -> None:
    assert core.say(session_id).status == "accepted", "the log has ended, and its session is busy"


@dataclass(frozen=True)
class Blow:
    """What hits a worker in front of a call, or when it has just taken effect; not each time, but once."""

    verb: str
    has_happened: bool
    dies: bool
    share: float = 1.0


def _strike(core: Core, workers: Sequence[Working], blow: Blow) -> None:
    for worker in workers:
        worker.strike = partial(_hit, core, workers, worker, blow)


def _hit(core: Core, workers: Sequence[Working], worker: Working, blow: Blow, verb: str, has_happened: bool) -> None:
    if (verb, has_happened) == (blow.verb, blow.has_happened) and core.random.random() < blow.share:
        for each in workers:
            each.strike = spare
        _stop(core, worker, dies=blow.dies)


def _stop(core: Core, process: Process, *, dies: bool) -> None:
    now = core.loop.now
    core.disturbed_until(now)
    if dies:
        process.kill()
        core.at(now, core.work)
    else:
        process.pause()
        _wake(core, process, now)


def cancel(core: Core) -> None:
    """Its owner wants a task cancelled: while it is queued, amid its turn, at its end, at a take-over; told or not."""
    core.open_door()
    draw, chance = core.random.uniform, core.random.random
    core.author.pieces = core.random.choice((3, 3, 40))
    core.bell.losing = core.random.choice((0.0, 1.0))
    task_id = core.post()
    core.read(task_id)
    begun = core.random.choice((0.0, 0.0, 0.3))
    first = core.work() if not begun else None
    answered: list[Task] = []
    wanted = begun + draw(-0.1, 0.7)
    core.at(max(0.0, wanted), _cancel, core, task_id, answered)
    if first is None:
        core.at(begun, core.work)
    elif chance() < 0.25:
        core.at(max(0.0, wanted + draw(-0.3, 0.3)), _stop_if, core, first, chance() < 0.5)
        core.at(_soon_or_late(core), core.work)
    core.settle()
    task = core.database.tasks[task_id].task
    assert task.status in ("succeeded", "cancelled")
    if core.author.pieces > 3 and not answered[0].has_ended:
        assert task.status == "cancelled", "who speaks for long is not cancelled"
    if task.status == "cancelled":
        assert task.cancel_requested_at is not None


def _cancel(core: Core, task_id: TaskId, answered: list[Task]) -> None:
    answered.append(at_once(core.controls.cancel(EVERYONES, task_id)))


def _stop_if(core: Core, process: Process, dies: bool) -> None:
    _stop(core, process, dies=dies)


def steer(core: Core) -> None:
    """Several clients post to one session while its turns make steps; whoever runs these may die, or calls be lost."""
    core.open_door()
    draw, chance = core.random.uniform, core.random.random
    core.author.steps, core.author.pieces = core.random.choice((1, 2, 3)), 1
    first = core.work()
    core.read(task_id := core.post())
    session_id = core.session_of(task_id)
    posted: list[MessageId] = [core.database.tasks[task_id].task.input_id]
    for _ in range(core.random.randrange(2, 8)):
        core.at(draw(0, 0.8), _steer, core, session_id, posted)
    if chance() < 0.3:
        core.be_troubled(0.05, 0.25, draw(0.2, 1.0), ("append", "promote", "end"))
    if chance() < 0.5:
        verb = core.random.choice(("promote", "promote", "append", "end"))
        _strike(core, [first], Blow(verb, has_happened=chance() < 0.5, dies=chance() < 0.5, share=0.5))
    core.at(_soon_or_late(core), core.work)
    core.settle()
    said = [each.id for each in core.database.sessions[session_id].messages if each.role == "user"]
    assert said == posted, "messages are lost, doubled or in another order"


def _steer(core: Core, session_id: SessionId, posted: list[MessageId]) -> None:
    posted.append(core.say(session_id).message_id)


SCENARIOS: dict[str, Scenario] = {
    scenario.__name__: scenario for scenario in (take_over, hand_over, lost_tail, finish, cancel, steer)
}


def run_seed(scenario: Scenario, seed: int, parts: Parts = PARTS) -> Core:
    """One run, and what is left of it. Raises AssertionError where something is not as it must be."""
    core = Core(seed, parts)
    try:
        scenario(core)
    finally:
        core.leave()
    return core
