"""A model without a model: it does what its input says, so that everything can be tried without a key."""

import asyncio
import re
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from service.model.events import TextPart, Usage
from service.model.failures import ModelCallFailed
from service.model.generation import (
    GO_ON,
    CallEnded,
    Piece,
    Prompt,
    ReasoningPiece,
    TextPiece,
    ToolCallPiece,
    Utterance,
)
from service.model.ids import TaskId

MAX_COUNT: Final = 1_000_000
MAX_SIZE_BYTES: Final = 64 * 1024
MAX_WAIT_SECONDS: Final = 3600
MAX_RATE: Final = 1_000_000
MAX_REMEMBERED_FAILURES: Final = 10_000
"""Of so many `/fail … times=` it is remembered how often they failed; beyond it the least recent one starts anew."""

PIECES_BETWEEN_PAUSES: Final = 64
"""After so many pieces in a row other coroutines get their turn."""

_PIECE_CHARACTERS: Final = 16 * 1024
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_ERROR_TYPE: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")

ACTS: Final = """\
/say <text>: I say the text.
/count <n> [rate=<per second>] [size=<bytes>]: I count to n, at most so fast, in pieces of that size.
/reason <text>: I pretend to think the text.
/wait <seconds>: I am silent.
/fail <error_type> [times=<k>]: the call fails so, k times, or always.
/tool <name> <json>: I ask for a tool; such lines one after another are one step, the lines after them the next."""


@dataclass(frozen=True, slots=True)
class _Say:
    text: str
    kind: type[TextPiece] | type[ReasoningPiece] = TextPiece


@dataclass(frozen=True, slots=True)
class _Count:
    n: int
    rate: float | None
    size_bytes: int


@dataclass(frozen=True, slots=True)
class _Wait:
    seconds: float


@dataclass(frozen=True, slots=True)
class _Fail:
    error_type: str
    times: int | None


@dataclass(frozen=True, slots=True)
class _Ask:
    name: str
    arguments: str


_Act = _Say | _Count | _Wait | _Fail | _Ask


class DemoModel:
    """Does the acts that the turn's messages name, one a line; for one without any it says what it is.

    The same prompt gives the same pieces: which acts are done already is seen from the steps that the turn has had. The
    one thing that it remembers is how often a `/fail … times=` failed for a task: in this object's memory, for the
    MAX_REMEMBERED_FAILURES most recent ones. `sleep` and `clock` (seconds, monotonic) belong together.
    """

    def __init__(
        self,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sleep = sleep
        self._clock = clock
        self._failures: OrderedDict[tuple[TaskId, int], int] = OrderedDict()

    @property
    def provider(self) -> str:
        return "demo"

    async def stream(self, task_id: TaskId, prompt: Prompt) -> AsyncGenerator[Piece]:
        """Do the acts of the step in their order, then CallEnded; its usage counts words.

        Raises ModelCallFailed where told to. What comes in between two steps is done behind what was to be done anyway.
        """
        pieces = words = asked = 0
        before: type[TextPiece] | type[ReasoningPiece] | None = None
        for number, act in _due(prompt):
            match act:
                case _Wait(seconds):
                    await self._sleep(seconds)
                case _Fail(error_type, times):
                    if self._still_fails((task_id, number), times):
                        raise ModelCallFailed(error_type)
                case _Ask(name, arguments):
                    asked += 1
                    yield ToolCallPiece(f"call_{number}", name, arguments)
                case _Say() | _Count():
                    rate = act.rate if isinstance(act, _Count) else None
                    start = self._clock()
                    kind = act.kind if isinstance(act, _Say) else TextPiece
                    if kind is before:
                        yield kind("\n")
                    before = kind
                    for index, piece in enumerate(_pieces(act)):
                        # Against the start, not the piece before: a late piece does not make the others late.
                        early = 0.0 if rate is None else start + index / rate - self._clock()
                        pieces += 1
                        if early > 0 or pieces % PIECES_BETWEEN_PAUSES == 0:
                            await self._sleep(max(early, 0))
                        words += len(piece.text.split())
                        yield piece
        heard = sum(len(_text(utterance).split()) for utterance in prompt.turn if utterance.role == "user")
        yield CallEnded("tool-calls" if asked else "stop", Usage(heard, words))

    def _still_fails(self, act: tuple[TaskId, int], times: int | None) -> bool:
        if times is None:
            return True
        failed = self._failures.pop(act, 0)
        self._failures[act] = min(failed + 1, times)
        if len(self._failures) > MAX_REMEMBERED_FAILURES:
            self._failures.popitem(last=False)
        return failed < times


def _pieces(act: _Say | _Count) -> Iterator[TextPiece | ReasoningPiece]:
    if isinstance(act, _Say):
        return map(act.kind, _words(act.text))
    return (TextPiece(_numbered(i, act.size_bytes)) for i in range(1, act.n + 1))


def _text(utterance: Utterance) -> str:
    text = "\n".join(part.text for part in utterance.parts if isinstance(part, TextPart))
    return _SURROGATE.sub("\ufffd", text)


def _due(prompt: Prompt) -> list[tuple[int, _Act]]:
    """What is to be done in the next step, with its place among all that the turn's messages name."""
    acts: list[_Act] = []
    done = 0
    for utterance in prompt.turn:
        if utterance.role == "user":
            acts += _acts(_text(utterance))
        else:
            done = _step_end(acts, done)
    if not acts:
        acts.append(_Say(_introduction("")))
    if not prompt.tools:
        rest = (_without_tools(act) for act in acts[done:])
        return list(enumerate(rest, done))
    return list(enumerate(acts[done : _step_end(acts, done)], done))


def _step_end(acts: Sequence[_Act], begin: int) -> int:
    """Behind the first tools that are asked for one after another; or the end of all."""
    asks = [isinstance(act, _Ask) for act in acts]
    pairs = zip(asks[begin:], asks[begin + 1 :], strict=False)
    return next(
        (n for n, (asks_now, asks_next) in enumerate(pairs, begin + 1) if asks_now and not asks_next), len(acts)
    )


def _without_tools(act: _Act) -> _Act:
    return _Say(f"I have no tools now, so I did not ask for {act.name}.") if isinstance(act, _Ask) else act


def _acts(told: str) -> Iterator[_Act]:
    """One for each line that begins with `/`."""
    lines = [line.rstrip("\r") for line in told.split("\n") if line.startswith("/")]
    if not lines:
        yield _Say(_introduction(told))
    yield from map(_act, lines)


def _act(line: str) -> _Act:
    name, *others = line.split(maxsplit=1)
    rest = "".join(others).strip()
    try:
        match name:
            case "/say":
                return _Say(_present(rest))
            case "/reason":
                return _Say(_present(rest), ReasoningPiece)
            case "/count":
                return _count(rest)
            case "/wait":
                return _Wait(_number("the seconds", rest, 0, MAX_WAIT_SECONDS))
            case "/fail":
                return _fail(rest)
            case "/tool":
                return _ask(rest)
            case _:
                return _Say(f"I do not know {name}. What I can be told:\n{ACTS}")
    except _Malformed as malformed:
        return _Say(f"I could not do this line, because {malformed}: {line}")


class _Malformed(ValueError):
    """A line that begins like an act and goes on otherwise; the text says what is the matter, for people."""


def _count(rest: str) -> _Count:
    n_text, options = _options(rest, {"rate", "size"})
    n = int(_number("the count", n_text, 1, MAX_COUNT, whole=True))
    rate = _number("the rate", options["rate"], 1 / MAX_WAIT_SECONDS, MAX_RATE) if "rate" in options else None
    least = len(_numbered(n, 0))
    size = _number("the size", options["size"], least, MAX_SIZE_BYTES, whole=True) if "size" in options else 0
    return _Count(n, rate, int(size))


def _fail(rest: str) -> _Fail:
    error_type, options = _options(rest, {"times"})
    if not _ERROR_TYPE.fullmatch(error_type):
        raise _Malformed("an error type is up to 64 small letters, digits and underscores, a letter first")
    times = _number("the number of times", options["times"], 1, MAX_COUNT, whole=True) if "times" in options else None
    return _Fail(error_type, None if times is None else int(times))


def _ask(rest: str) -> _Ask:
    """The arguments are passed on as they are: what a tool makes of wrong ones can be tried, too."""
    name, *others = _present(rest).split(maxsplit=1)
    return _Ask(name, "".join(others) or "{}")


def _options(rest: str, known: set[str]) -> tuple[str, dict[str, str]]:
    first, *others = rest.split() or [""]
    options: dict[str, str] = {}
    for other in others:
        key, _, value = other.partition("=")
        if key not in known or key in options:
            raise _Malformed(f"{other} does not belong there")
        options[key] = value
    return first, options


def _number(what: str, text: str, least: float, most: float, *, whole: bool = False) -> float:
    shape = r"[0-9]{1,9}" if whole else r"[0-9]{1,9}(\.[0-9]{1,9})?"
    if not re.fullmatch(shape, text) or not least <= float(text) <= most:
        raise _Malformed(f"{what} must be a {'whole ' if whole else ''}number from {least:.7g} to {most:.7g}")
    return float(text)


def _present(text: str) -> str:
    if not text:
        raise _Malformed("there is no text in it")
    return text


def _numbered(number: int, size_bytes: int) -> str:
    return f"{number}{'.' * (size_bytes - len(str(number)) - 1)} "


def _words(text: str) -> Iterator[str]:
    """Each with the space after it, so that together they are the text; a very long one in several pieces."""
    for word in re.finditer(r"\s*\S+\s*|\s+", text):
        for start in range(word.start(), word.end(), _PIECE_CHARACTERS):
            yield text[start : min(start + _PIECE_CHARACTERS, word.end())]


def _introduction(told: str) -> str:
    outcome, goes_on, _ = told.partition(GO_ON)
    if goes_on:
        return f"I have been told how it ended. {outcome.strip()}"
    said = f"You said: {told}" if told.strip() else "You said nothing that I can read."
    return (
        "Hello! I am the demo model: a small program, no AI. I do what lines that begin with a slash tell me:\n"
        f"{ACTS}\n{said}"
    )
