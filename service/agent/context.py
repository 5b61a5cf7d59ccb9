"""What a model is given of a conversation, from what is stored and what the log says so far. Pure.

A tool call never comes without its result: one that has none, since its turn was cut off, is given a placeholder.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import orjson

from service.model import events as e
from service.model.failures import NO_RESULT
from service.model.fold import LogFold, Part
from service.model.generation import GO_ON, SpokenPart, ToolUse, Utterance
from service.model.ids import MessageId
from service.model.session import History, Message, SessionSettings
from service.model.task import Task

MAX_STEPS: Final = 25
"""Of a turn that may ask for tools, where its session is not set otherwise; then one more is made without."""

MAX_FOLLOW_UP_STEPS: Final = 12
"""Of a follow-up, and fewer where its session is set so."""


@dataclass(frozen=True, slots=True)
class Context:
    """A turn's conversation as the database has it."""

    settings: SessionSettings
    max_steps: int
    """That may ask for tools; then one more is made without."""
    earlier: tuple[Utterance, ...]
    """Before this task."""
    input: tuple[e.InputPart, ...]
    """What a turn answers; of a follow-up its log tells that."""
    promoted: frozenset[MessageId]
    """Messages that holders before have taken in, whether the log tells of them or not."""

    def turn(self, fold: LogFold) -> tuple[Utterance, ...]:
        """The input or the outcome, the finished steps, and the messages between them, as the log has them."""
        said = [Utterance("user", self.input), *_steps(fold)]
        return tuple(utterance for utterance in said if utterance.parts)


def context_of(task: Task, history: History, told: tuple[e.InputPart, ...] = ()) -> Context:
    """What a turn goes on from; the messages that it has taken in itself stand in its log.

    Its log may tell its input: the history does not reach back to that where the turn has taken in very much.
    """
    own = {m.id for m in history.messages if (m.task_id, m.role) == (task.id, "user") and m.id != task.input_id}
    asked = told or next((input_parts(m.parts) for m in history.messages if m.id == task.input_id), ())
    earlier = (m for m in history.messages if m.id != task.input_id and m.id not in own)
    said = tuple(utterance for message in earlier for utterance in _utterances(message))
    wanted, most = history.settings.max_iterations, MAX_STEPS if task.kind == "turn" else MAX_FOLLOW_UP_STEPS
    max_steps = most if wanted is None else wanted if task.kind == "turn" else min(wanted, most)
    return Context(history.settings, max_steps, said, asked, frozenset(own))


def input_parts(parts: Sequence[Part]) -> tuple[e.InputPart, ...]:
    """What a model gets to see of what somebody said: texts and files."""
    seen: list[e.InputPart] = []
    for part in parts:
        match part:
            case {"type": "text", "text": text}:
                seen.append(e.TextPart(text))
            case {"type": "file", "mediaType": media_type, "url": url}:
                seen.append(e.FilePart(media_type, url))
    return tuple(seen)


def _utterances(message: Message) -> Iterator[Utterance]:
    said = [Utterance("user", input_parts(message.parts))] if message.role == "user" else _by_step(message.parts)
    yield from (utterance for utterance in said if utterance.parts)


def _steps(fold: LogFold) -> Iterator[Utterance]:
    parts, done = fold.finished_parts, 0
    for promoted in fold.promoted:
        yield from _by_step(parts[done : promoted.place])
        yield Utterance("user", promoted.message.parts)
        done = promoted.place
    yield from _by_step(parts[done:])


def _by_step(parts: Sequence[Part]) -> Iterator[Utterance]:
    """One for each step: what is asked for in a step has its results before the next one begins.

    What stands before the first one is the operation whose outcome a follow-up tells.
    """
    begins = [i for i, part in enumerate(parts) if part["type"] == "step-start"]
    before = parts[: begins[0]] if begins else parts
    if any(part["type"] == "data-operation" for part in before):
        yield from (Utterance("user", (e.TextPart(_outcome(part)),)) for part in before if "toolCallId" in part)
    else:
        yield Utterance("assistant", tuple(_spoken(before)))
    for begin, end in pairwise([*begins, len(parts)]):
        yield Utterance("assistant", tuple(_spoken(parts[begin:end])))


def _outcome(call: Part) -> str:
    """An operation's end as a model is told of it. A text is told as it is."""
    name, result = call["type"].removeprefix("tool-"), _result(call)
    arguments = orjson.dumps(call.get("input")).decode()
    said = result if isinstance(result, str) else orjson.dumps(result).decode()
    how = {"output-available": "has succeeded", "output-denied": "was not allowed"}.get(call["state"], "has failed")
    if "preliminary" in call:
        how = "was allowed, and has begun; you will be told how it ends"
    return f"The operation `{name}` that you began with {arguments} {how}:\n{said}\n\n{GO_ON}"


def _spoken(parts: Sequence[Part]) -> Iterator[SpokenPart]:
    for part in parts:
        match part:
            case {"toolCallId": call_id, "type": kind, "input": value}:
                yield ToolUse(call_id, kind.removeprefix("tool-"), value, _result(part))
            case {"type": "text", "text": text} if text:
                yield e.TextPart(text)


def _result(part: Part) -> e.Json:
    match part:
        case {"state": "output-available", "output": output}:
            return output
        case {"state": "output-error", "errorText": text}:
            return text
        case {"state": "output-denied", "approval": {"reason": reason}}:
            return f"The answer was no: {reason}"
        case {"state": "output-denied"}:
            return "The answer was no."
        case {"state": "approval-requested"}:
            return "The user is asked; you are told of the answer when it comes."
        case _:
            return NO_RESULT
