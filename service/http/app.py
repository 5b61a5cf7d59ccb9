"""The table of routes, and the server that stands behind it."""

import socket
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Middleware

from service.access.callers import Callers
from service.http import contract, openapi
from service.http.auth import COMPLETE, FOLLOW, OPERATE, OPS, OPS_ALONE, PUBLIC, READ, READ_OWN, WRITE, Taken, asking
from service.http.caching import keep_nothing
from service.http.chat import ChatRoutes, plain_errors
from service.http.connection import Connection
from service.http.console import Console
from service.http.cors import allowing, preflights
from service.http.health import HealthRoutes
from service.http.listener import Listener, descriptors_room
from service.http.local import only_local
from service.http.logs import LogRoutes
from service.http.metrics import MetricsRoutes, RequestMeter, counting
from service.http.operations import DeadLetterRoutes, OperationRoutes
from service.http.problems import problems
from service.http.request_ids import name_answer, request_ids
from service.http.route import Route
from service.http.sessions import SessionRoutes
from service.http.streams import Streams
from service.http.tasks import TaskRoutes
from service.http.tracing import Tracer, tracing
from service.model.errors import ConfigurationError

MAX_BODY_BYTES: Final = 1024 * 1024
MAX_HEADER_BYTES: Final = 8190
IDLE_SECONDS: Final = 75.0
"""A connection on which no request comes, or not the whole of a request's head, is closed after this."""

SEND_BUFFER_BYTES: Final = 128 * 1024
"""What the kernel holds for one connection: a reader that does not read costs this and the transport's own buffer."""

STOP_SECONDS: Final = 2.0
"""So long an answer that is under way at a stop may take, and as long again to end when it is told to. Streams are cut
at once: their readers come back, to whoever serves then."""


def routes(
    sessions: SessionRoutes,
    tasks: TaskRoutes,
    operations: OperationRoutes,
    letters: DeadLetterRoutes,
    chats: ChatRoutes,
    logs: LogRoutes,
    health: HealthRoutes,
    metrics: MetricsRoutes,
) -> list[Route]:
    """The table."""
    return [
        Route("POST", "/sessions", sessions.create, WRITE, contract.CREATE_SESSION),
        Route("GET", "/sessions", sessions.newest, READ, contract.LIST_SESSIONS),
        Route("GET", "/sessions/{session_id}", sessions.read, READ, contract.READ_SESSION),
        Route("PATCH", "/sessions/{session_id}", sessions.change, WRITE, contract.CHANGE_SESSION),
        Route("DELETE", "/sessions/{session_id}", sessions.delete, WRITE, contract.DELETE_SESSION),
        Route("POST", "/sessions/{session_id}/messages", sessions.post, WRITE, contract.POST_MESSAGE),
        Route("GET", "/sessions/{session_id}/stream", sessions.stream, READ, contract.FOLLOW_SESSION),
        Route("GET", "/sessions/{session_id}/tasks", sessions.tasks, READ, contract.LIST_SESSION_TASKS),
        Route("GET", "/tasks", tasks.newest, READ, contract.LIST_TASKS),
        Route("GET", "/tasks/{task_id}", tasks.read, READ, contract.READ_TASK),
        Route("POST", "/tasks/{task_id}/cancel", tasks.cancel, OPERATE, contract.CANCEL_TASK),
        Route("GET", "/tasks/{task_id}/stream", tasks.stream, FOLLOW, contract.FOLLOW_TASK),
        Route("GET", "/tasks/{task_id}/events", logs.events, READ, contract.LIST_EVENTS),
        Route("GET", "/tasks/{task_id}/verify", logs.verify, READ, contract.VERIFY_TASK),
        Route("GET", "/tasks/{task_id}/export", logs.export, READ, contract.EXPORT_TASK),
        Route("POST", "/tasks/{task_id}/token", tasks.token, READ_OWN, contract.MINT_TOKEN),
        Route("GET", "/operations", operations.newest, READ, contract.LIST_OPERATIONS),
        Route("GET", "/operations/{operation_id}", operations.read, READ, contract.READ_OPERATION),
        Route(
            "POST", "/operations/{operation_id}/complete", operations.complete, COMPLETE, contract.COMPLETE_OPERATION
        ),
        Route("POST", "/operations/{operation_id}/cancel", operations.cancel, OPERATE, contract.CANCEL_OPERATION),
        Route("POST", "/operations/{operation_id}/approve", operations.answer, WRITE, contract.ANSWER_OPERATION),
        Route("POST", "/operations/{operation_id}/redrive", operations.redrive, OPERATE, contract.REDRIVE_OPERATION),
        Route("GET", "/dead-letters", letters.oldest, OPS_ALONE, contract.LIST_DEAD_LETTERS),
        Route("POST", "/dead-letters/redrive", letters.redrive, OPS_ALONE, contract.REDRIVE_DEAD_LETTERS),
        Route("POST", "/api/chat", chats.post, WRITE, contract.POST_CHAT),
        Route("GET", "/api/chat/{chat_id}/stream", chats.stream, READ_OWN, contract.FOLLOW_CHAT),
        Route("POST", "/api/chat/{chat_id}/stop", chats.stop, WRITE, contract.STOP_CHAT),
        *probes(health, metrics),
        Route("GET", "/openapi.json", openapi.answer, PUBLIC, contract.CONTRACT),
        *_page(Console()),
    ]


def _page(console: Console) -> list[Route]:
    """What a browser asks for."""
    return [
        Route("GET", "/", console.page, PUBLIC, contract.PAGE),
        Route("GET", "/console/{file}", console.file, PUBLIC, contract.PAGE_FILE),
        Route("GET", "/console/{folder}/{name}", console.file, PUBLIC, contract.PAGE_FILE_IN_FOLDER),
    ]


def probes(health: HealthRoutes, metrics: MetricsRoutes) -> list[Route]:
    """What machines ask of every process."""
    return [
        Route("GET", "/healthz", health.alive, PUBLIC, contract.ALIVE),
        Route("HEAD", "/healthz", health.alive, PUBLIC, contract.ALIVE),
        Route("GET", "/metrics", metrics.read, OPS, contract.METRICS),
        Route("GET", "/readyz", health.ready, PUBLIC, contract.READY),
        Route("HEAD", "/readyz", health.ready, PUBLIC, contract.READY),
    ]


def make_app(
    sessions: SessionRoutes,
    tasks: TaskRoutes,
    operations: OperationRoutes,
    letters: DeadLetterRoutes,
    chats: ChatRoutes,
    logs: LogRoutes,
    streams: Streams,
    health: HealthRoutes,
    metrics: MetricsRoutes,
    meter: RequestMeter,
    callers: Callers,
    *,
    is_local: bool,
    origins: Collection[str] = (),
    tracer: Tracer | None = None,
) -> web.Application:
    """All routes. Where `is_local`, only programs of this machine are answered. Pages of `origins` may ask, too."""
    table = routes(sessions, tasks, operations, letters, chats, logs, health, metrics)
    first = [] if tracer is None else [tracing(tracer)]
    app = _app(table, meter, callers, first=first, is_local=is_local, origins=origins)
    app[openapi.DOCUMENT] = openapi.document(table)
    app.on_shutdown.append(streams.cut)
    return app


def make_probe_app(
    health: HealthRoutes, metrics: MetricsRoutes, meter: RequestMeter, callers: Callers, *, is_local: bool
) -> web.Application:
    """What machines ask of a process without doors, under the same rules."""
    return _app(probes(health, metrics), meter, callers, is_local=is_local)


def _app(
    table: Sequence[Route],
    meter: RequestMeter,
    callers: Callers,
    *,
    is_local: bool,
    first: Sequence[Middleware] = (),
    origins: Collection[str] = (),
) -> web.Application:
    taken: dict[web.AbstractRoute, Taken] = {}
    middlewares = [*first, counting(meter), request_ids, plain_errors, problems]
    if is_local:
        middlewares.append(only_local(origins))
    middlewares += [preflights(origins, [route.method for route in table]), asking(callers, taken)]
    app = web.Application(middlewares=middlewares, client_max_size=MAX_BODY_BYTES)
    for route in table:
        taken[app.router.add_route(route.method, route.path, route.handler)] = route.takes
    app.on_response_prepare.append(name_answer)
    app.on_response_prepare.append(keep_nothing)
    if origins:
        app.on_response_prepare.append(allowing(origins))
    return app


@asynccontextmanager
async def serving(
    app: web.Application,
    host: str,
    port: int,
    *,
    write_timeout_seconds: float,
    port_name: str = "HTTP_PORT",
    room: Callable[[], int] = descriptors_room,
) -> AsyncGenerator[str]:
    """Serve while the block runs; yields the URL. Raises ConfigurationError where the address cannot be had.

    A client that takes nothing of an answer for `write_timeout_seconds` is disconnected. No more connections than
    `room` says are open at once; who comes then waits until one has gone.
    `port_name` is the setting that says which port.
    """
    listening = _listening(host, port, port_name)
    runner = web.AppRunner(app, shutdown_timeout=STOP_SECONDS)
    async with AsyncExitStack() as stack:
        stack.callback(listening.close)
        stack.push_async_callback(runner.cleanup)
        await runner.setup()
        if runner.server is None:
            raise RuntimeError("a runner that is set up has no server")
        connection = partial(
            Connection,
            runner.server,
            write_timeout_seconds=write_timeout_seconds,
            access_log=None,
            auto_decompress=False,  # `bodies` takes none that are compressed
            keepalive_timeout=IDLE_SECONDS,
            max_line_size=MAX_HEADER_BYTES,
            max_field_size=MAX_HEADER_BYTES,
        )
        listener = Listener(listening, connection, room)
        listener.start()
        stack.push_async_callback(listener.stop)
        shown = f"[{host}]" if ":" in host else host
        yield f"http://{shown}:{listening.getsockname()[1]}"


def _listening(host: str, port: int, port_name: str) -> socket.socket:
    """A bound socket whose connections inherit a small send buffer."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigurationError(f"PLAYHEAD_HTTP_HOST: cannot listen on {host}: {error.strerror}") from error
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        listening.bind(address)
    except OSError as error:
        listening.close()
        raise ConfigurationError(
            f"PLAYHEAD_{port_name}: cannot listen on {host} port {port}: {error.strerror}"
        ) from error
    return listening
