"""The routes of stored logs: a page of events, the proof, the file."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

import structlog
from aiohttp import web

from service.http import auth, bodies, paths
from service.http.wire import Wire
from service.model.chain import Proof
from service.model.errors import StoreUnavailable, cause_of
from service.registry.event_page import event_page
from service.registry.export import Exporter
from service.registry.follow import Follower
from service.registry.proof import Prover
from service.sessions.tasks import Tasks

log = structlog.get_logger()

PROOFS_AT_ONCE: Final = 4
"""Who comes then waits: a proof reads a whole log, and others have its stores and its processor, too."""


class LogRoutes:
    """Poll, prove, export."""

    def __init__(
        self, tasks: Tasks, follower: Follower, prover: Prover, exporter: Exporter, *, write_timeout_seconds: float
    ) -> None:
        self._tasks = tasks
        self._follower = follower
        self._prover = prover
        self._exporter = exporter
        self._write_timeout_seconds = write_timeout_seconds
        self._proofs = asyncio.Semaphore(PROOFS_AT_ONCE)

    async def events(self, request: web.Request) -> web.Response:
        task_id, after = paths.task_id(request), paths.after(request)
        limit = paths.limit(request, usual=paths.USUAL_EVENTS, most=paths.MAX_EVENTS)
        await self._tasks.check_reach(auth.reach(request), task_id)
        return bodies.answer(bodies.page_body(await event_page(self._follower, task_id, after, limit)))

    async def verify(self, request: web.Request) -> web.Response:
        task_id = paths.task_id(request)
        await self._tasks.check_reach(auth.reach(request), task_id)
        async with self._proofs:
            if request.transport is None:
                return web.Response()  # whoever asked has gone already
            return bodies.answer(bodies.verdict_body(await self._prover.prove(task_id)))

    async def export(self, request: web.Request) -> web.StreamResponse:
        task_id, redact = paths.task_id(request), paths.choice(request, "redact", ("1",)) is not None
        await self._tasks.check_reach(auth.reach(request), task_id)
        seal = await self._exporter.seal_of(task_id)
        headers = _caching(None if redact else seal)
        if seal is not None and not redact and _has(request, seal):
            return web.Response(status=304, headers=headers)
        headers["Content-Type"] = "application/jsonl"
        headers["Content-Disposition"] = f'attachment; filename="{task_id}.jsonl"'
        response = web.StreamResponse(headers=headers)
        async with aclosing(self._exporter.lines(task_id, seal, redact=redact)) as lines:
            first = await anext(lines)  # until here an error is a problem
            if request.transport is None:
                return response  # whoever asked has gone already
            wire = Wire(response, request.transport, self._write_timeout_seconds)
            try:
                await response.prepare(request)
                await wire.write(first)
                await _send(wire, lines)
            except ConnectionError:
                pass
        return response


async def _send(wire: Wire, lines: AsyncGenerator[bytes]) -> None:
    """The rest of an export. Where it fails the connection is cut, so that nobody takes it for all of it."""
    try:
        async for line in lines:
            await wire.write(line)
    except ConnectionError:
        raise
    except StoreUnavailable as error:
        log.warning("export_cut", cause=cause_of(error))
        wire.abort()
    except Exception:
        log.exception("export_crashed")
        wire.abort()


def _caching(seal: Proof | None) -> dict[str, str]:
    """An archived log never changes: whoever may have it may keep it. It is known by its SHA-256."""
    if seal is None:
        return {}
    return {"Cache-Control": "private, immutable", "ETag": f'"{seal.link.hex()}"'}


def _has(request: web.Request, seal: Proof) -> bool:
    """Whether the client says that it has this log already."""
    return any(tag.value in (seal.link.hex(), "*") for tag in request.if_none_match or ())
