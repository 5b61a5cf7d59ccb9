"""Whether and when a model call that failed is tried again: pure decisions."""

from collections.abc import Callable
from typing import Final

from service.model.failures import ModelCallFailed

MAX_RETRIES: Final = 5
"""Of one call, by one holder of its task."""

FIRST_WAIT_SECONDS: Final = 0.5
"""Before the first retry; twice as long before each one after it."""

SPREAD: Final = 0.25
"""A wait is longer or shorter by up to this share, so that calls which failed together do not come back together."""

MAX_RETRY_AFTER_SECONDS: Final = 60.0
"""A provider that asks for a longer pause is not waited for: the reader is told now, and may come back later."""


def seconds_before(retry: int, failure: ModelCallFailed, draw: Callable[[], float]) -> float | None:
    """How long to wait before retry number `retry` (1 is the first); None where there is to be none.

    `draw` gives numbers from 0 to 1. Where the provider named a time, the wait is not shorter.
    """
    asked = failure.retry_after_seconds or 0.0
    if not failure.is_retryable or retry > MAX_RETRIES or asked > MAX_RETRY_AFTER_SECONDS:
        return None
    growing = FIRST_WAIT_SECONDS * 2.0 ** (retry - 1) * (1 + SPREAD * (2 * draw() - 1))
    return max(asked, growing)
