"""The routes of operations: whatever the agent waits for."""

from typing import Final, get_args

from aiohttp import web

from service.http import answers, auth, bodies, operation_bodies, paths
from service.http.problems import problem
from service.model.completion import read_completion
from service.model.errors import InvalidInput, NotFound
from service.model.events import OperationStatus
from service.model.ids import SessionId, TaskId
from service.model.intake import MAX_LETTERS
from service.model.operation import Completion, Delivery, Executor, Noted, OperationFilter, Progress, Report
from service.operations.operations import Operations
from service.operations.ports import DeadLetterBox

UNKNOWN_RETRY_SECONDS: Final = 5
"""When to ask again about an operation that there is not: it may come."""

OTHER_OPERATION: Final = "`operation_id` names another operation than the path."
UNNAMED_OPERATION: Final = "A signed message has to name its operation by `operation_id`: the path is not signed."


class OperationRoutes:
    """List, read; complete, cancel, answer, redrive."""

    def __init__(self, operations: Operations) -> None:
        self._operations = operations

    async def newest(self, request: web.Request) -> web.Response:
        limit, before, wanted = paths.limit(request), paths.number(request, "before"), _wanted(request)
        operations = await self._operations.newest(auth.reach(request), wanted, limit, before)
        earlier = None
        if len(operations) == limit:
            earlier = str(request.rel_url.update_query(limit=str(limit), before=str(operations[-1].number)))
        listed: answers.OperationList = {
            "operations": [operation_bodies.listed_body(operation) for operation in operations],
            "earlier": earlier,
        }
        return bodies.answer(listed)

    async def read(self, request: web.Request) -> web.Response:
        life = await self._operations.life(auth.reach(request), paths.operation_id(request))
        return bodies.answer(operation_bodies.operation_body(*life))

    async def complete(self, request: web.Request) -> web.Response:
        became = await self._operations.take(await _report(request))
        try:
            body = operation_bodies.taken_body(became)
        except NotFound as error:
            answer = problem(404, error.error_type, str(error))
            answer.headers["Retry-After"] = str(UNKNOWN_RETRY_SECONDS)
            return answer
        return bodies.answer(body, status=202 if isinstance(became, Noted) else 200)

    async def cancel(self, request: web.Request) -> web.Response:
        operation_id = paths.operation_id(request)
        await bodies.parse_body(request, operation_bodies.CancelOperation)
        operation = await self._operations.cancel(auth.reach(request), operation_id, _delivery(request))
        return bodies.answer(operation_bodies.whole_body(operation))

    async def redrive(self, request: web.Request) -> web.Response:
        operation_id = paths.operation_id(request)
        await bodies.parse_body(request, operation_bodies.RedriveOperation)
        task_id = await self._operations.redrive(auth.reach(request), operation_id, _delivery(request))
        return bodies.answer(operation_bodies.redriven_body(operation_id, task_id), status=202)

    async def answer(self, request: web.Request) -> web.Response:
        operation_id = paths.operation_id(request)
        said = (await bodies.parse_body(request, operation_bodies.AnswerOperation)).said()
        became = await self._operations.answer(auth.reach(request), operation_id, said, _delivery(request))
        return bodies.answer(operation_bodies.taken_body(became))


class DeadLetterRoutes:
    """List, redrive."""

    def __init__(self, letters: DeadLetterBox) -> None:
        self._letters = letters

    async def oldest(self, request: web.Request) -> web.Response:
        letters = await self._letters.list(paths.limit(request, most=MAX_LETTERS))
        listed: answers.DeadLetterList = {"dead_letters": [operation_bodies.letter_body(each) for each in letters]}
        return bodies.answer(listed)

    async def redrive(self, request: web.Request) -> web.Response:
        wanted = await bodies.parse_body(request, operation_bodies.RedriveLetters)
        by = auth.caller(request).name
        count = await self._letters.redrive(by, reason=wanted.reason, letter_id=wanted.id)
        redriven: answers.RedrivenLetters = {"redriven": count}
        return bodies.answer(redriven)


def _delivery(request: web.Request) -> Delivery:
    """How this request came, without a name: what it does can be repeated by itself."""
    return Delivery("http", auth.caller(request).name)


async def _report(request: web.Request) -> Report:
    """The message. Raises NotFound, InvalidInput, Problem."""
    operation_id, caller, reach = paths.operation_id(request), auth.caller(request), auth.reach(request)
    is_signed = caller.tool is not None
    raw = await bodies.read_body(request)
    said = read_completion(raw)
    if said.operation_id is None and is_signed:
        raise InvalidInput(UNNAMED_OPERATION)  # else it could be sent again to another operation of this tool
    if said.operation_id not in (None, operation_id):
        raise InvalidInput(OTHER_OPERATION)
    task_id = None if said.task_id is None else TaskId(said.task_id)
    delivery = Delivery("http", caller.name, paths.delivery_id(request, is_signed=is_signed))
    if said.is_progress:
        return Progress(operation_id, said.progress, delivery, task_id, reach, caller.tool)
    return Completion(operation_id, said.outcome, delivery, task_id, reach, caller.tool)


def _wanted(request: web.Request) -> OperationFilter:
    status = paths.choice(request, "status", get_args(OperationStatus))
    executor = paths.choice(request, "executor", get_args(Executor))
    session_id = paths.text(request, "session")
    return OperationFilter(
        next((each for each in get_args(OperationStatus) if each == status), None),
        next((each for each in get_args(Executor) if each == executor), None),
        paths.text(request, "tool"),
        None if session_id is None else SessionId(session_id),
        paths.choice(request, "stuck", ("1",)) is not None,
    )
