"""`playhead operations`: whatever the agent waits for."""

import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from functools import partial
from typing import Annotated, Any, Final

import orjson
import typer

from service.cli import exits
from service.cli.doors import Door, JsonOption, StoresOption, TokenOption, UrlOption, Where, run
from service.cli.listing import Column, Listing, age, of, show_all, shown
from service.cli.screen import Screen
from service.cli.shown import NOTE
from service.cli.tasks import USUAL_ENTRIES, AllOption, LimitOption
from service.model.completion import read_completion
from service.model.errors import InvalidInput, NotFound, NothingFailed, PlayheadError
from service.model.events import OperationStatus
from service.model.ids import OperationId, parse_operation_id, parse_session_id
from service.model.intake import LETTER_ID, MAX_LETTERS, DeadReason
from service.model.operation import Executor, Failed, OperationFilter, Succeeded

LISTING: Final = Listing(
    (
        Column("id", of("id")),
        Column("status", of("status")),
        Column("age", age("created_at")),
        Column("tool", of("tool"), 64),
        Column("by", of("executor"), 64),
        Column("took", age("created_at", "ended_at"), 80),
        Column("error", of("error_type"), 80),
        Column("deadline", of("deadline"), 110),
        Column("session", of("session_id"), 160),
    ),
    (
        *("id", "status", "tool", "executor", "session_id", "task_id", "created_at", "deadline", "ended_at"),
        "error_type",
    ),
)
LETTERS: Final = Listing(
    (
        Column("id", of("id")),
        Column("reason", of("reason")),
        Column("died", age("died_at")),
        Column("bytes", of("size"), 64),
        Column("from", of("app_id"), 80),
        Column("message", of("message_id"), 110),
        Column("what is wrong", of("detail"), 150),
    ),
    ("id", "reason", "died_at", "message_id", "app_id", "size", "detail"),
)
_FACTS: Final = (
    *("id", "status", "tool", "executor", "session_id", "task_id", "turn_id", "owner", "created_at", "deadline"),
    *("ended_at", "has_follow_up", "delivered"),
)
_WORDS: Final = ("arguments", "progress", "outcome")

operations = typer.Typer(no_args_is_help=True, help="What the agent waits for, and how it ended.")
OperationArgument = Annotated[str, typer.Argument(metavar="ID", help="The operation's id.")]


@operations.command("list", epilog=exits.HELP)
def list_operations(
    stuck: Annotated[  # noqa: FBT002 - typer makes a flag of it
        bool, typer.Option("--stuck", help="Only those past their deadline, and those whose follow-up failed.")
    ] = False,
    status: Annotated[OperationStatus | None, typer.Option(help="Only those of this status.")] = None,
    executor: Annotated[Executor | None, typer.Option(help="Only those that such a one ends.")] = None,
    tool: Annotated[str | None, typer.Option(help="Only those of this tool.")] = None,
    session: Annotated[str | None, typer.Option(help="Only those of this session.")] = None,
    limit: LimitOption = USUAL_ENTRIES,
    everything: AllOption = False,  # noqa: FBT002
    as_json: JsonOption = False,  # noqa: FBT002
    url: UrlOption = None,
    token: TokenOption = None,
    stores: StoresOption = False,  # noqa: FBT002
) -> None:
    """List operations, the newest first.

    In a pipe a line each, with tabs between: id, status, tool, executor, session, task, created, deadline, ended, error
    type.
    """
    session_id = None if session is None else parse_session_id(session)
    wanted = OperationFilter(status, executor, _tool(tool), session_id, stuck)
    run(Where(url, token, stores), partial(_list, wanted, None if everything else limit, as_json=as_json))


@operations.command("show", epilog=exits.HELP)
def show(
    operation: OperationArgument,
    as_json: JsonOption = False,  # noqa: FBT002 - typer makes a flag of it
    url: UrlOption = None,
    token: TokenOption = None,
    stores: StoresOption = False,  # noqa: FBT002
) -> None:
    """Show an operation, and every message about its end: when it came, from whom, and what became of it."""
    run(Where(url, token, stores), partial(_show, parse_operation_id(operation), as_json=as_json))


@operations.command("complete", epilog=exits.HELP)
def complete(
    operation: OperationArgument,
    success: Annotated[  # noqa: FBT002 - typer makes a flag of it
        bool, typer.Option("--success", help="It is done.")
    ] = False,
    failure: Annotated[bool, typer.Option("--failure", help="It failed, for good.")] = False,  # noqa: FBT002
    result: Annotated[str | None, typer.Option(help="What came of it, as JSON; null without it.")] = None,
    error_type: Annotated[str | None, typer.Option(help="The class of the failure, such as timeout.")] = None,
    message: Annotated[str | None, typer.Option(help="What people are told of the failure.")] = None,
    as_json: JsonOption = False,  # noqa: FBT002
    url: UrlOption = None,
    token: TokenOption = None,
    stores: StoresOption = False,  # noqa: FBT002
) -> None:
    """Say how an operation ended, as its service would. The same again is harmless; another outcome is refused."""
    outcome = _outcome(result, error_type, message, success=success, failure=failure)
    run(Where(url, token, stores), partial(_complete, parse_operation_id(operation), outcome, as_json=as_json))


@operations.command("cancel", epilog=exits.HELP)
def cancel(
    operation: OperationArgument,
    as_json: JsonOption = False,  # noqa: FBT002 - typer makes a flag of it
    url: UrlOption = None,
    token: TokenOption = None,
    stores: StoresOption = False,  # noqa: FBT002
) -> None:
    """End an operation as cancelled; the agent is told. One that has ended stays as it is."""
    run(Where(url, token, stores), partial(_cancel, parse_operation_id(operation), as_json=as_json))


@operations.command("redrive", epilog=exits.HELP)
def redrive(
    one: Annotated[
        str | None, typer.Argument(metavar="ID", help="An operation's id, or a dead letter's.", show_default=False)
    ] = None,
    failed: Annotated[  # noqa: FBT002 - typer makes a flag of it
        bool, typer.Option("--failed", help="All operations whose follow-up failed, or rests.")
    ] = False,
    tool: Annotated[str | None, typer.Option(help="With --failed: those of this tool.")] = None,
    dead: Annotated[bool, typer.Option("--dead", help="All dead letters.")] = False,  # noqa: FBT002
    reason: Annotated[DeadReason | None, typer.Option(help="With --dead: those of this reason.")] = None,
    url: UrlOption = None,
    token: TokenOption = None,
    stores: StoresOption = False,  # noqa: FBT002
) -> None:
    """Have follow-ups that failed tried again, or dead letters sent again: one, or all of a kind.

    In a pipe a line for each operation, with a tab between: its id, and the task that follows it up. The same again is
    harmless.
    """
    if (one is not None) + failed + dead != 1:
        raise InvalidInput("Give an ID, --failed or --dead, one of them.")
    if (tool is not None and not failed) or (reason is not None and not dead):
        raise InvalidInput("--tool goes with --failed, and --reason with --dead.")
    where = Where(url, token, stores)
    if failed:
        run(where, partial(_redrive_failed, OperationFilter(tool=_tool(tool), is_stuck=True)))
    elif dead:
        run(where, partial(_redrive_letters, reason=reason))
    elif re.fullmatch(LETTER_ID, one or ""):
        run(where, partial(_redrive_letters, letter_id=one))
    else:
        run(where, partial(_redrive, parse_operation_id(one or "")))


@operations.command("dead-letters", epilog=exits.HELP)
def dead_letters(
    limit: Annotated[int, typer.Option(min=1, max=MAX_LETTERS, help="So many at most.")] = USUAL_ENTRIES,
    as_json: JsonOption = False,  # noqa: FBT002 - typer makes a flag of it
    url: UrlOption = None,
    token: TokenOption = None,
    stores: StoresOption = False,  # noqa: FBT002
) -> None:
    """List messages that came over the message broker and nobody could take, the oldest first.

    In a pipe a line each, with tabs between: id, reason, died, message id, sender, bytes, what is wrong.
    """
    run(Where(url, token, stores), partial(_dead_letters, limit, as_json=as_json))


def _outcome(
    result: str | None, error_type: str | None, message: str | None, *, success: bool, failure: bool
) -> Succeeded | Failed:
    """What is said, held to the same rules as what services say. Raises InvalidInput."""
    if success == failure:
        raise InvalidInput("Give --success or --failure, one of the two.")
    if failure and result is not None:
        raise InvalidInput("--result: a failure has none.")
    if success and (error_type is not None or message is not None):
        raise InvalidInput("--error-type, --message: a success has neither.")
    said = {"error_type": error_type, "error": message} if failure else {"result": _json(result)}
    given = {name: value for name, value in said.items() if success or value is not None}
    try:
        data = orjson.dumps({"success": success, **given})
    except orjson.JSONEncodeError:
        raise InvalidInput("The message holds something that JSON cannot say.") from None
    outcome = read_completion(data).outcome
    if not isinstance(outcome, Succeeded | Failed):
        raise RuntimeError("a completion is a success or a failure")
    return outcome


def _json(text: str | None) -> Any:
    try:
        return None if text is None else orjson.loads(text)
    except orjson.JSONDecodeError:
        raise InvalidInput("--result: JSON is expected; a text stands in quotes.") from None


def _tool(text: str | None) -> str | None:
    if text is not None and not (0 < len(text) <= 255 and text.isprintable()):
        raise InvalidInput("--tool: 1 to 255 characters are taken that can be printed.")
    return text


async def _list(wanted: OperationFilter, limit: int | None, door: Door, *, as_json: bool) -> int:
    await show_all(door.operations(wanted, limit), LISTING, as_json=as_json)
    return 0


async def _show(operation_id: OperationId, door: Door, *, as_json: bool) -> int:
    operation, screen = await door.operation(operation_id), Screen()
    if as_json:
        screen.pass_on(orjson.dumps(operation, option=orjson.OPT_APPEND_NEWLINE))
        return 0
    for name in _FACTS:
        if operation.get(name) is not None:
            screen.line(f"{name.replace('_', ' '):14} {operation[name]}")
    for name in _WORDS:
        if operation.get(name) is not None:
            screen.line(f"{name:14} {orjson.dumps(operation[name]).decode()}")
    for follow_up in operation.get("follow_ups") or []:
        _show_follow_up(follow_up, screen)
    for delivery in operation.get("deliveries") or []:
        _show_delivery(delivery, screen)
    return 0


def _show_follow_up(follow_up: Mapping[str, Any], screen: Screen) -> None:
    said = f"{follow_up.get('status')}"
    if tries := follow_up.get("failed_tries"):
        said += f", tries that failed: {tries}"
        said += f", the next one at {shown(follow_up.get('due_at'))}" if follow_up.get("status") == "queued" else ""
    why = f" ({follow_up['error_type']})" if follow_up.get("error_type") else ""
    screen.line(f"{'follow-up':14} task {follow_up.get('task_id')}: {said}{why}")


def _show_delivery(delivery: Mapping[str, Any], screen: Screen) -> None:
    if delivery.get("disposition") == "redriven":
        screen.line(f"\n[redriven at {shown(delivery.get('at'))}]", NOTE)
        screen.line(f"by {delivery.get('by')} over {delivery.get('door')}")
        return
    name = f", called {delivery['delivery_id']}" if delivery.get("delivery_id") else ""
    times = f", {delivery.get('times')} times" if delivery.get("times") != 1 else ""
    screen.line(f"\n[{delivery.get('disposition')} at {shown(delivery.get('at'))}{times}]", NOTE)
    screen.line(f"{delivery.get('status')}, by {delivery.get('by')} over {delivery.get('door')}{name}")
    outcome = delivery.get("outcome")
    is_long = outcome is None and delivery.get("outcome_bytes")
    screen.line(f"{delivery.get('outcome_bytes')} bytes" if is_long else orjson.dumps(outcome).decode())


async def _complete(operation_id: OperationId, outcome: Succeeded | Failed, door: Door, *, as_json: bool) -> int:
    receipt, screen = await door.complete(operation_id, outcome), Screen()
    if as_json:
        screen.pass_on(orjson.dumps(receipt, option=orjson.OPT_APPEND_NEWLINE))
        return 0
    status, task_id = receipt.get("status"), receipt.get("task_id")
    if "duplicate" in receipt:
        screen.line(f"The operation had {status} like this before.")
    else:
        screen.line(f"The operation has {status}; task {task_id} goes on with that.")
    return 0


async def _redrive(operation_id: OperationId, door: Door) -> int:
    _tell_redriven(await door.redrive(operation_id), Screen())
    return 0


async def _redrive_failed(wanted: OperationFilter, door: Door) -> int:
    screen, count = Screen(), 0
    async with aclosing(door.operations(wanted, None)) as stuck:
        async for operation in stuck:
            if operation["status"] == "pending":
                continue  # past its deadline, which is the clock's to say
            try:
                redriven = await door.redrive(OperationId(operation["id"]))
            except NotFound:
                continue  # its session was deleted meanwhile
            except PlayheadError as error:
                if error.error_type != NothingFailed.error_type:
                    raise
                continue  # it has succeeded meanwhile
            _tell_redriven(redriven, screen)
            count += 1
    if screen.is_terminal:
        screen.line(f"{count} redriven.")
    return 0


def _tell_redriven(redriven: Mapping[str, Any], screen: Screen) -> None:
    if screen.is_terminal:
        screen.line(f"Task {redriven.get('task_id')} goes on with operation {redriven.get('operation_id')}.")
    else:
        screen.line(f"{redriven.get('operation_id')}\t{redriven.get('task_id')}")


async def _redrive_letters(door: Door, *, reason: DeadReason | None = None, letter_id: str | None = None) -> int:
    count = await door.redrive_letters(reason=reason, letter_id=letter_id)
    if count == 0 and letter_id is not None:
        raise NotFound
    Screen().line(f"{count} sent again.")
    return 0


async def _dead_letters(limit: int, door: Door, *, as_json: bool) -> int:
    async def letters() -> AsyncGenerator[dict[str, Any]]:
        for letter in await door.dead_letters(limit):
            yield letter

    await show_all(letters(), LETTERS, as_json=as_json)
    return 0


async def _cancel(operation_id: OperationId, door: Door, *, as_json: bool) -> int:
    operation, screen = await door.cancel_operation(operation_id), Screen()
    if as_json:
        screen.pass_on(orjson.dumps(operation, option=orjson.OPT_APPEND_NEWLINE))
    else:
        screen.line(f"The operation is {operation.get('status')}.")
    return 0
