"""The Python client: `async with Playhead(url, token) as playhead`, over HTTP alone.

playhead    what can be asked of a service
asking      one request and its answer, or a list page by page
following   how a log is followed over one connection after another
exporting   an exported log as it comes
publishing  completions over RabbitMQ, for services (not loaded with the rest: it needs aio-pika)
sse         the bytes of an event stream as frames
errors      what can go wrong, as one tree

It needs of this house only the nouns (`service.model`); besides aiohttp and orjson.
"""

from service.client.errors import (
    Forbidden,
    Gap,
    Gone,
    Incomplete,
    NoSuchThing,
    NotUnderstood,
    Refused,
    Unauthenticated,
    Unreachable,
)
from service.client.following import Event, Pace, Patience
from service.client.playhead import Playhead
from service.model.operation import Approval, Failed, Reply, Succeeded

__all__ = [
    "Approval",
    "Event",
    "Failed",
    "Forbidden",
    "Gap",
    "Gone",
    "Incomplete",
    "NoSuchThing",
    "NotUnderstood",
    "Pace",
    "Patience",
    "Playhead",
    "Refused",
    "Reply",
    "Succeeded",
    "Unauthenticated",
    "Unreachable",
]
