"""The log of an operation that a person has answered, as the rest of the message in which that person was asked."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from itertools import dropwhile
from typing import Final

from service.model.encoding import frames, is_one_of, unframed
from service.model.events import Abort, Error, Finish, ToolApprovalResponse
from service.model.log import StoredEvent
from service.registry.follow import Ended, Followed, Frames

ENDING: Final = (Error, Abort, Finish)
"""What tells the end of a log; `useChat` reads nothing behind an error."""


async def from_the_answer(items: AsyncGenerator[Followed], *, is_last: bool) -> AsyncGenerator[Followed]:
    """A followed log from the person's answer on. Where another log comes behind it, its ending is left out."""
    has_answer = False
    async with aclosing(items):
        async for item in items:
            match item:
                case Frames(joint) if not (has_answer and is_last):
                    events = unframed(joint)
                    if not has_answer:
                        events = list(dropwhile(_is_before_the_answer, events))
                        has_answer = bool(events)
                    if not is_last:
                        events = [event for event in events if not is_one_of(event[1], ENDING)]
                    if events:
                        yield replace(item, frames=frames(events))
                case Ended() if not is_last:
                    pass
                case _:
                    yield item


def _is_before_the_answer(event: StoredEvent) -> bool:
    return not is_one_of(event[1], (ToolApprovalResponse,))
