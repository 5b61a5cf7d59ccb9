"""Remote tools: a call is an operation before its service is told, and its end where the service answers at once."""

from collections.abc import Awaitable, Callable
from typing import Final, assert_never

import structlog

from service.model.events import Json
from service.model.generation import ToolDescription
from service.model.ids import OperationId
from service.model.operation import (
    Accepted,
    Completion,
    Delivery,
    Failed,
    NewOperation,
    Operation,
    Outcome,
    Succeeded,
)
from service.model.remote import Answered, NotTaken, RemoteAnswer, RemoteCall, RemoteTool, Taken
from service.model.task import Claim
from service.operations.patience import Patience
from service.operations.ports import OperationDesk, OperationInbox, ServiceCalls

log = structlog.get_logger()

RETRY_SECONDS: Final = (0.5, 2.0)
"""Before each further call of a service that does one with the same operation id once, and that was not to be had."""

MAX_KEY_CHARACTERS: Final = 255


class RemoteOperations:
    """One remote tool; an `OperationTool` of the agent's.

    `why_not` says what is the matter with arguments; `callback_url` where an operation's completion may be posted.
    """

    def __init__(
        self,
        tool: RemoteTool,
        desk: OperationDesk,
        inbox: OperationInbox,
        services: ServiceCalls,
        patiently: Patience,
        sleep: Callable[[float], Awaitable[object]],
        *,
        why_not: Callable[[Json], str | None],
        callback_url: Callable[[OperationId], str | None],
    ) -> None:
        self._tool = tool
        self._desk = desk
        self._inbox = inbox
        self._services = services
        self._patiently = patiently
        self._sleep = sleep
        self.why_not = why_not
        self._callback_url = callback_url

    @property
    def description(self) -> ToolDescription:
        """For the model."""
        return ToolDescription(self._tool.name, self._tool.description, dict(self._tool.schema))

    @property
    def needs_approval(self) -> bool:
        """Whether a person is asked before the service is."""
        return self._tool.needs_approval

    async def start(self, claim: Claim, call_id: str, arguments: Json) -> Operation:
        """Begin the operation, then call the service. Where a holder before may have called it already, and the service
        does not know a repeat, it is not called again: its completion decides, or the deadline.
        """
        tool, task_id = self._tool, claim.task.id
        key = self._key(arguments)
        new = NewOperation(call_id, tool.name, "remote", arguments, tool.deadline_seconds, key)
        begun = await self._patiently(task_id, self._desk.begin, claim, new)
        operation = begun.operation
        is_ours = (operation.turn_id, operation.call_id) == (task_id, call_id)
        if operation.status != "pending" or not (begun.is_new or (is_ours and tool.is_repeatable)):
            return operation
        log.info("service_called", tool=tool.name, operation_id=operation.id, task_id=operation.task_id)
        answer = await self._call(operation)
        outcome = _outcome(answer)
        if outcome is None:
            return operation
        at_once = Completion(
            operation.id, outcome, Delivery("service", f"tool {tool.name}"), follow_up=False, asked_by=claim
        )
        disposition = await self._patiently(task_id, self._inbox.complete, at_once)
        if not isinstance(disposition, Accepted):  # its completion was faster than its answer, or it was cancelled
            log.info("service_answer_late", operation_id=operation.id, disposition=type(disposition).__name__)
        ended = await self._patiently(task_id, self._desk.of_task, operation.task_id)
        return operation if ended is None else ended

    async def _call(self, operation: Operation) -> RemoteAnswer:
        call = RemoteCall(
            operation.id,
            operation.task_id,
            operation.session_id,
            operation.arguments,
            self._callback_url(operation.id),
        )
        answer = await self._services.call(self._tool, call)
        for seconds in RETRY_SECONDS if self._tool.is_repeatable else ():
            if not (isinstance(answer, NotTaken) and answer.is_retryable):
                break
            await self._sleep(seconds)
            answer = await self._services.call(self._tool, call)
        return answer

    def _key(self, arguments: Json) -> str | None:
        """What names the work, where that is a text of some length."""
        name = self._tool.key_argument
        value = arguments.get(name) if isinstance(arguments, dict) and name is not None else None
        return value if isinstance(value, str) and 0 < len(value) <= MAX_KEY_CHARACTERS and "\0" not in value else None


def _outcome(answer: RemoteAnswer) -> Outcome | None:
    match answer:
        case Taken():
            return None
        case Answered(result):
            return Succeeded(result)
        case NotTaken(error_type, message, details):
            return Failed(error_type, message, details)
        case other:
            assert_never(other)
