"""The Python client: `async with Playhead(url, token) as playhead`, over HTTP alone.

playhead    what can be asked of a service
following   how a log is followed over one connection after another
sse         the bytes of an event stream as frames
errors      what can go wrong, as one tree

It needs of this house only the nouns (`service.model`); besides aiohttp and orjson.
"""

from service.client.errors import (
    Forbidden,
    Gap,
    Gone,
    NoSuchThing,
    NotUnderstood,
    Refused,
    Unauthenticated,
    Unreachable,
)
from service.client.following import Event, Pace, Patience
from service.client.playhead import Playhead

__all__ = [
    "Event",
    "Forbidden",
    "Gap",
    "Gone",
    "NoSuchThing",
    "NotUnderstood",
    "Pace",
    "Patience",
    "Playhead",
    "Refused",
    "Unauthenticated",
    "Unreachable",
]
