"""Which trace something belongs to, where the service is traced."""

import re
from collections.abc import Callable
from typing import Final, NewType, TypeAlias

TraceParent = NewType("TraceParent", str)
"""The span that something is part of, as the W3C header `traceparent` has it."""

CurrentTrace: TypeAlias = Callable[[], TraceParent | None]
"""Says which span the caller runs in; None where it is in none, or in one that is not kept."""

_SHAPE: Final = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", re.ASCII)


def untraced() -> TraceParent | None:
    """The `CurrentTrace` of a service that is not traced."""
    return None


def trace_from(text: str) -> TraceParent | None:
    """What was stored, where it is one: the shape of version 00 (W3C Trace Context, 3.2)."""
    return TraceParent(text) if _SHAPE.fullmatch(text) else None
