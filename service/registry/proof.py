"""The proof of a log: read page by page wherever it is stored, and compared with what the database knows of it."""

from typing import Final

from service.model.check import LogCheck, position_of
from service.model.errors import NotFound
from service.model.ids import TaskId
from service.model.log import Page, TaskFacts
from service.model.position import BEGINNING, Position
from service.model.verdict import ReadFrom, Verdict
from service.registry.ports import LogSource, Seals, TaskDirectory, TaskRows

FIRST_PAGE_EVENTS: Final = 128
MAX_PAGE_EVENTS: Final = 512
"""What is looked at in one turn of the loop: some milliseconds."""
PAGE_BYTES: Final = 256 * 1024

LOOKS: Final = 3
"""A log that is closed or archived while it is read is read again. It cannot become either more often."""


class Prover:
    """Proves logs over the stores that have them."""

    def __init__(
        self, hot: LogSource, archived: LogSource, seals: Seals, directory: TaskDirectory, rows: TaskRows
    ) -> None:
        self._hot = hot
        self._archived = archived
        self._seals = seals
        self._directory = directory
        self._rows = rows

    async def prove(self, task_id: TaskId) -> Verdict:
        """Read a log to its end, as it is now, and say what is wrong with it; an archived one in both stores.

        One that is still written is proven as far as it is. Raises NotFound, StoreUnavailable; nothing that is wrong
        with the log raises anything.
        """
        facts = await self._facts(task_id)
        for _ in range(LOOKS):
            verdict = await self._look(task_id, facts)
            before, facts = facts, await self._facts(task_id)
            if facts == before:
                break
        return verdict

    async def _facts(self, task_id: TaskId) -> TaskFacts:
        facts = await self._directory.facts(task_id)
        if facts is None:
            raise NotFound
        return facts

    async def _look(self, task_id: TaskId, facts: TaskFacts) -> Verdict:
        check = LogCheck(task_id)
        read_from = await self._read(check, task_id, is_archived=facts.log_archived)
        if facts.log_archived:
            await self._compare_seal(check, task_id)
        if facts.log_closed and not check.closed:
            check.found.add("no_finish", check.last, "The log was closed, and its terminal event is not there.")
        row = await self._rows.row(task_id)  # behind the log: it has ended before its log has
        if row is None:
            raise NotFound
        check.compare(row)
        return check.verdict(read_from)

    async def _read(self, check: LogCheck, task_id: TaskId, *, is_archived: bool) -> ReadFrom:
        source = self._archived if is_archived else self._hot
        compares, was_hot = is_archived, False
        after, count = BEGINNING, FIRST_PAGE_EVENTS
        while True:
            page = await source.read(task_id, after, count)
            for event in page.events:
                check.take(event)
            if compares:
                copy = await self._hot.read(task_id, after, count)
                compares = _compare_copy(check, page, copy)
                was_hot = was_hot or bool(copy.events) or copy.head.last != BEGINNING
            last = position_of(page.events[-1][0]) if page.events else None
            if len(page.events) < count or last is None or last <= after:
                break
            event_bytes = sum(len(data) for _, data in page.events) // len(page.events) + 1
            after, count = last, max(1, min(MAX_PAGE_EVENTS, PAGE_BYTES // event_bytes))
        if page.head.last != (check.last or BEGINNING):
            check.found.add("wrong_end", check.last, f"The store says that the log ends at {page.head.last}.")
        if is_archived:
            return "both" if was_hot else "archived"
        return "hot" if check.events else "nowhere"

    async def _compare_seal(self, check: LogCheck, task_id: TaskId) -> None:
        seal = await self._seals.seal_of(task_id)
        if seal is None or seal.link != check.link:
            check.found.add("wrong_sha256", check.last, "It is not the log whose SHA-256 was stored with it.")
        if seal is not None and seal.events != check.events:
            check.found.add("wrong_end", check.last, f"When it was archived the log had {seal.events} events.")


def _compare_copy(check: LogCheck, page: Page, copy: Page) -> bool:
    """A page of the archive with the same one of the hot store; whether the next ones are to be compared.

    The hot copy may have gone, now or while it was read.
    """
    if copy.head.last == BEGINNING and not copy.events:
        return False
    pairs = zip(page.events, copy.events, strict=False)
    shorter = min(len(page.events), len(copy.events))
    at = next((i for i, (archived, hot) in enumerate(pairs) if archived != hot), shorter)
    if at == len(page.events) == len(copy.events):
        return True
    event = page.events[at] if at < len(page.events) else copy.events[at]
    position: Position | None = position_of(event[0])
    check.found.add("hot_differs", position, "Here the hot copy goes on otherwise than the archive.")
    return False
