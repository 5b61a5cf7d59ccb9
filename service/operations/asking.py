"""Tools that only begin their operations: a question to a person, a timer, and the shape of others like them."""

from collections.abc import Callable
from typing import Annotated, Final, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.model.events import Json
from service.model.generation import ToolDescription
from service.model.operation import Executor, NewOperation, Operation
from service.model.task import Claim
from service.operations.patience import Patience
from service.operations.ports import OperationDesk

ASK: Final = "ask"
TIMER: Final = "timer"

MAX_QUESTION_CHARACTERS: Final = 10_000
MAX_TIMER_SECONDS: Final = 366 * 24 * 3600

MAX_REASON_CHARACTERS: Final = 500

Input = TypeVar("Input", bound=BaseModel)


def reason_of(error: ValidationError) -> str:
    """What is the matter with which argument; 500 characters at most."""
    wrong = (f"{'.'.join(map(str, each['loc'])) or 'arguments'}: {each['msg']}" for each in error.errors())
    return f"The arguments do not fit. {'; '.join(wrong)}"[:MAX_REASON_CHARACTERS]


class Question(BaseModel):
    """What `ask` is given."""

    model_config = ConfigDict(extra="forbid", strict=True)

    question: Annotated[str, Field(min_length=1, max_length=MAX_QUESTION_CHARACTERS)]


class Timer(BaseModel):
    """What `timer` is given."""

    model_config = ConfigDict(extra="forbid", strict=True)

    seconds: Annotated[float, Field(gt=0, le=MAX_TIMER_SECONDS)]
    note: Annotated[str, Field(max_length=MAX_QUESTION_CHARACTERS)] = ""
    """What is to be done then, for the model itself."""


class BeginsOnly(Generic[Input]):
    """An `OperationTool` of the agent's that is begun, and then waited for."""

    needs_approval: Final = False

    def __init__(
        self,
        name: str,
        description: str,
        arguments: type[Input],
        executor: Executor,
        deadline_seconds: Callable[[Input], float | None],
        desk: OperationDesk,
        patiently: Patience,
    ) -> None:
        self._name = name
        self._described = ToolDescription(name, description, arguments.model_json_schema())
        self._arguments = arguments
        self._executor = executor
        self._deadline_seconds = deadline_seconds
        self._desk = desk
        self._patiently = patiently

    @property
    def description(self) -> ToolDescription:
        """For the model."""
        return self._described

    def why_not(self, arguments: Json) -> str | None:
        """What is the matter with these arguments; None: they fit. Names none of their values."""
        try:
            self._arguments.model_validate(arguments)
        except ValidationError as error:
            return reason_of(error)
        return None

    async def start(self, claim: Claim, call_id: str, arguments: Json) -> Operation:
        """Begin the operation, or answer the one that this call has begun before. Raises NotTheHolder."""
        seconds = self._deadline_seconds(self._arguments.model_validate(arguments))
        new = NewOperation(call_id, self._name, self._executor, arguments, seconds)
        return (await self._patiently(claim.task.id, self._desk.begin, claim, new)).operation


def ask(desk: OperationDesk, patiently: Patience) -> BeginsOnly[Question]:
    """The tool `ask`: its output is what the person answers, whenever that is."""
    says = "Ask the user a question. Your turn ends with it, and you go on when there is an answer."
    return BeginsOnly(ASK, says, Question, "person", lambda _: None, desk, patiently)


def timer(desk: OperationDesk, patiently: Patience) -> BeginsOnly[Timer]:
    """The tool `timer`: it has ended when its time has come."""
    says = "Wait for some time. You go on when it has passed, with the note that you give yourself."
    return BeginsOnly(TIMER, says, Timer, "timer", lambda given: given.seconds, desk, patiently)
