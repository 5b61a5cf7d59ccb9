"""What a worker makes of a store that is away: a line when that begins, one when it is over, and no judgement."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import structlog

from service.model.errors import StoreUnavailable, cause_of

log = structlog.get_logger()

OUTAGE_SHARE: Final = 1 / 6
"""Of a lease: whoever has no answer for longer is in an outage. A renewal is given up after so long, and an outage that
costs a healthy holder its lease is longer by a tenth of a lease at least: it renews at each fifth, and goes on for two
thirds. The tenth is for the second until an idle claimer asks."""

DOUBT_LEASES: Final = 2
"""How many lease times an outage is remembered: within one, what was lost in it lapses; within another, it is found."""


class Edge:
    """The edge of a loop: whatever goes wrong in one round ends nothing but this round.

    It is told once, as `failed`, and that it goes on, as `goes_on`; a mistake of ours once for each kind of error, with
    where it came from.
    """

    def __init__(self, failed: str, goes_on: str, monotonic: Callable[[], float]) -> None:
        self._failed, self._goes_on = failed, goes_on
        self._monotonic = monotonic
        self._failing_since: float | None = None
        self._told: set[str] = set()

    @property
    def is_failing(self) -> bool:
        """Whether the last round went wrong."""
        return self._failing_since is not None

    @contextmanager
    def round(self) -> Iterator[None]:
        """One round of the loop."""
        begun = self._monotonic()
        try:
            yield
        except (StoreUnavailable, TimeoutError) as error:
            if self._is_new("a store is away", begun):
                log.warning(self._failed, cause=cause_of(error))
        except Exception as error:
            if self._is_new(type(error).__name__, begun):
                log.exception(self._failed)
        else:
            self._go_on()

    def _is_new(self, trouble: str, begun: float) -> bool:
        if self._failing_since is None:
            self._failing_since = begun
        is_new = trouble not in self._told
        self._told.add(trouble)
        return is_new

    def _go_on(self) -> None:
        if self._failing_since is not None:
            seconds = round(self._monotonic() - self._failing_since, 1)
            log.info(self._goes_on, after_seconds=seconds)
            self._failing_since = None
            self._told.clear()


class Answers:
    """Whether the database has answered for long enough that others can be judged by it.

    A process that has just begun has missed nothing: else a task that ends its workers would never be ended itself.
    """

    def __init__(self, lease_seconds: float, monotonic: Callable[[], float]) -> None:
        self._bound = lease_seconds * OUTAGE_SHARE
        self._doubt_seconds = lease_seconds * DOUBT_LEASES
        self._monotonic = monotonic
        self._waiting_since: float | None = None
        self._outage_ended_at = float("-inf")

    @contextmanager
    def asking(self) -> Iterator[None]:
        """A statement, answered where the block ends well. Blocks may overlap: an answer to one is one to all."""
        self.expect()
        yield
        if self._is_outage():
            self._outage_ended_at = self._monotonic()
        self._waiting_since = None

    def expect(self) -> None:
        """A statement is due, whether it is sent or not; until one is answered, nothing is known of the database."""
        if self._waiting_since is None:
            self._waiting_since = self._monotonic()

    def have_lasted(self) -> bool:
        """Whether no outage was seen for DOUBT_LEASES."""
        return not self._is_outage() and self._monotonic() - self._outage_ended_at >= self._doubt_seconds

    def _is_outage(self) -> bool:
        return self._waiting_since is not None and self._monotonic() - self._waiting_since > self._bound
