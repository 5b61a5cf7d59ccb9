"""What is true at the end of a run, whatever happened in it."""

from typing import TYPE_CHECKING

from service.model.encoding import decode
from service.model.events import Chunk, Unknown
from service.model.fold import BrokenLog, LogFold
from service.model.task import Task
from tests.races.connections import Connections
from tests.races.oracles import is_dense

if TYPE_CHECKING:
    from tests.races.core import Core


def check(core: "Core") -> None:
    """What is true at the end, whatever happened."""
    assert not core.store.broken, core.store.broken
    assert not core.tasks.broken, core.tasks.broken
    assert not core.errors, core.errors
    for row in core.database.tasks.values():
        assert row.log_closed, "a task is left over"
        assert row.task.has_ended
        assert core.database.open_turn(row.task.session_id) is None
        assert core.is_forgetful or core.store.is_whole(row.task.id), "what was acknowledged is not there"
        _check_messages(core, row.task)
        if core.store.store._there(row.task.id).closed or not core.is_forgetful:
            _check_log(core, row.task)
    for reader in core.readers:
        _check_reader(core, reader)


def _check_messages(core: "Core", task: Task) -> None:
    session = core.database.sessions[task.session_id]
    assert not session.pending, "a message is stranded"
    messages = [message for message in session.messages if message.task_id == task.id]
    assert [message.id for message in messages[:1]] == [task.input_id], "the input is gone"
    answers = [message.id for message in messages if message.role == "assistant"]
    assert answers in ([], [task.answer_id]), "an answer is stored twice"
    assert answers or task.status == "cancelled", "the answer is lost"


def _check_log(core: "Core", task: Task) -> None:
    log = core.store.store._there(task.id)
    assert is_dense(log.positions), "numbers are not dense, or time goes back"
    epochs = core.store.epochs[task.id]
    assert epochs == sorted(epochs), "a holder that was fenced has written"
    fold = LogFold()
    for _, data in log.events:
        _apply(fold, decode(data))  # refuses what stands behind a finish
    assert fold.finish is not None, "a log without an end"
    assert (fold.task_id, fold.message_id, fold.status) == (task.id, task.answer_id, task.status)
    if core.store.is_whole(task.id):
        _check_answer(core, task, fold)


def _check_answer(core: "Core", task: Task, fold: LogFold) -> None:
    assert fold.finish is not None
    assert fold.usage == fold.finish.message_metadata.usage == task.usage, "the log tells of other usage"
    assert fold.finish.message_metadata.output == fold.output(), "the log ends with another answer than it tells"
    messages = core.database.sessions[task.session_id].messages
    stored = next((list(m.message.parts) for m in messages if m.id == task.answer_id), [])
    assert stored == fold.message_parts(), "the log says another answer than the conversation"
    taken = [m.id for m in messages if (m.task_id, m.role) == (task.id, "user")]
    told = [task.input_id, *(each.message.id for each in fold.promoted)]
    assert told == taken, "the log tells of other messages than the conversation"


def _check_reader(core: "Core", reader: Connections) -> None:
    reader.check_alive()
    assert reader.gaps or not reader.vanished, "the end is lost, and the reader is not told"
    if reader.gaps:
        assert core.is_forgetful, "a gap is told though nothing is lost"
    elif reader.ended:
        assert reader.got in core.store.closed[reader.task_id], "a reader got another log"


def _apply(fold: LogFold, chunk: Chunk | Unknown) -> None:
    try:
        fold.apply(chunk)
    except BrokenLog as error:
        raise AssertionError("the log has no order that means anything") from error
