"""`playhead operations`: whatever the agent waits for."""

from collections.abc import Mapping
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
from service.model.errors import InvalidInput
from service.model.events import OperationStatus
from service.model.ids import OperationId, parse_operation_id, parse_session_id
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
    for delivery in operation.get("deliveries") or []:
        _show_delivery(delivery, screen)
    return 0


def _show_delivery(delivery: Mapping[str, Any], screen: Screen) -> None:
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


async def _cancel(operation_id: OperationId, door: Door, *, as_json: bool) -> int:
    operation, screen = await door.cancel_operation(operation_id), Screen()
    if as_json:
        screen.pass_on(orjson.dumps(operation, option=orjson.OPT_APPEND_NEWLINE))
    else:
        screen.line(f"The operation is {operation.get('status')}.")
    return 0
