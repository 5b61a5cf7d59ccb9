"""The only place that puts adapters behind ports. Whatever is opened here is closed at the end of its block."""

import asyncio
import random
import re
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiohttp import web
from redis.asyncio import Redis

from consumers.archiver import Archiver
from consumers.completions import Completions
from consumers.tasks import Worker
from service.access.bearer import BearerTokens
from service.access.callers import Callers
from service.access.jwks import Jwks, keys_in
from service.access.keys import Keys
from service.access.ports import KeyStore, TokenKey
from service.access.signatures import Signatures
from service.access.stream_tokens import StreamTokens
from service.adapters.commands import GRACE_SECONDS, Commands, hide_memory
from service.adapters.demo_model import DemoModel
from service.adapters.embedded import embedded_stores
from service.adapters.jwks_document import is_url, jwks_document
from service.adapters.metered import MeteredHints, MeteredLogs, MeteredModel, MeteredQueue
from service.adapters.metrics import CONTENT_TYPE, Metrics
from service.adapters.no_broker import NoDeadLetters
from service.adapters.postgres import Database, postgres_pool
from service.adapters.postgres_archive import PostgresArchive
from service.adapters.postgres_keys import PostgresKeys
from service.adapters.postgres_messages import PostgresMessages
from service.adapters.postgres_operations import PostgresOperations
from service.adapters.postgres_schema import apply_schema, check_schema
from service.adapters.postgres_sessions import PostgresSessions
from service.adapters.postgres_tasks import PostgresTasks
from service.adapters.redis_check import check_redis
from service.adapters.redis_client import connect
from service.adapters.redis_doorbell import RedisDoorbell
from service.adapters.redis_hints import RedisHints
from service.adapters.redis_hot import RedisHotLogs
from service.adapters.redis_log import RedisLogStore
from service.adapters.remote_tool import RemoteTools
from service.adapters.tools_file import read_tools
from service.adapters.traced import TracedLogs, TracedModel, TracedTurns
from service.agent.job_tools import SessionJobs, start_job
from service.agent.jobs import AT_ONCE, Jobs
from service.agent.ports import Model, OperationTool, Tool
from service.agent.runner import TaskRunner
from service.agent.step import Clock, Steps
from service.agent.tools import THINK, Toolbox
from service.http.app import make_app, make_probe_app
from service.http.chat import ChatRoutes
from service.http.health import HealthRoutes
from service.http.logs import LogRoutes
from service.http.metrics import MetricsRoutes
from service.http.operations import DeadLetterRoutes, OperationRoutes
from service.http.sessions import SessionRoutes
from service.http.streams import Streams
from service.http.tasks import TaskRoutes
from service.model.arguments import ArgumentSchema
from service.model.errors import ConfigurationError, IssuerUnavailable
from service.model.ids import SessionId
from service.model.remote import RemoteTool, callback_url
from service.model.trace import CurrentTrace, untraced
from service.operations.asking import ask, timer
from service.operations.gathering import Gathering
from service.operations.operations import Operations
from service.operations.patience import Patience
from service.operations.ports import DeadLetterBox, OperationDesk, OperationInbox, OperationStore, ServiceCalls
from service.operations.remote import RemoteOperations
from service.registry.archive import Archivist
from service.registry.export import Exporter
from service.registry.facts import SharedFacts
from service.registry.follow import Follower
from service.registry.hub import hub
from service.registry.pages import log_pages
from service.registry.ports import Hints, HotLogs, LogArchive, LogSource, LogStore, Seals, TaskDirectory, TaskRows
from service.registry.proof import Prover
from service.registry.watch import StoreWatch
from service.registry.writer import log_writer
from service.sessions.conversations import Conversations
from service.sessions.ports import (
    Backlogs,
    ChatStore,
    Doorbell,
    MessageStore,
    Removals,
    SessionStore,
    StepStore,
    TaskQueue,
    TaskStore,
)
from service.sessions.removal import Remover
from service.sessions.tasks import Tasks
from service.settings import Settings

if TYPE_CHECKING:
    from service.adapters.openai_model import OpenAIModel
    from service.adapters.rabbit import Outlet
    from service.adapters.rabbit_intake import Intake
    from service.adapters.rabbit_letters import DeadLetters
    from service.adapters.tracing import Tracing


@dataclass(frozen=True, slots=True)
class StoreUrls:
    """Where the stores are: as set, or where the embedded ones listen."""

    redis: str
    postgres: str

    def shown(self) -> "StoreUrls":
        """The same without passwords, for people."""
        return StoreUrls(without_password(self.redis), without_password(self.postgres))


def without_password(url: str) -> str:
    """A store's URL for people."""
    return re.sub(r"(?i)([?&][^=&]*password=)[^&]*", r"\1***", re.sub(r"(://[^:@/?]*:).*@", r"\1***@", url))


@dataclass(frozen=True, slots=True)
class House:
    """Every port that is backed by a store, each with its adapter; and the remote tools that are set."""

    urls: StoreUrls
    logs: LogStore
    hot: HotLogs
    archive: LogArchive
    archived: LogSource
    seals: Seals
    hints: Hints
    sessions: SessionStore
    removals: Removals
    messages: MessageStore
    chats: ChatStore
    tasks: TaskStore
    queue: TaskQueue
    step_store: StepStore
    desk: OperationDesk
    inbox: OperationInbox
    operations: OperationStore
    directory: TaskDirectory
    rows: TaskRows
    backlogs: Backlogs
    doorbell: Doorbell
    keys: KeyStore
    token_key: TokenKey
    watch: StoreWatch
    health: HealthRoutes
    tools: tuple[RemoteTool, ...] = ()
    letters: DeadLetterBox = field(default_factory=NoDeadLetters)
    metrics: Metrics = field(default_factory=Metrics)


@asynccontextmanager
async def store_urls(settings: Settings) -> AsyncGenerator[StoreUrls]:
    """The stores' addresses; a store that is not set runs embedded until the block ends, with its schema in place."""
    redis_url, postgres_url = settings.redis_url, settings.postgres_url
    async with AsyncExitStack() as stack:
        if redis_url is None or postgres_url is None:
            embedded = await stack.enter_async_context(
                embedded_stores(settings.data_dir, valkey=redis_url is None, postgres=postgres_url is None)
            )
            if embedded.postgres is not None:
                await apply_schema(embedded.postgres)
            redis_url, postgres_url = redis_url or embedded.redis, postgres_url or embedded.postgres
        if redis_url is None or postgres_url is None:
            raise RuntimeError("an embedded store has no address")
        yield StoreUrls(redis_url, postgres_url)


@asynccontextmanager
async def open_house(settings: Settings) -> AsyncGenerator[House]:
    """All stores, connected and watched. Raises ConfigurationError, DatabaseUnavailable."""
    tools = () if settings.tools_file is None else read_tools(settings.tools_file)
    await _check_stores(settings)
    async with AsyncExitStack() as stack:
        urls = await stack.enter_async_context(store_urls(settings))
        redis, subscriber = await _redis(stack, urls.redis), await _redis(stack, urls.redis)
        database = Database(await stack.enter_async_context(postgres_pool(urls.postgres)))
        logs = RedisLogStore(redis)
        sessions, messages = PostgresSessions(database), PostgresMessages(database)
        tasks, operations = PostgresTasks(database), PostgresOperations(database)
        archive, keys = PostgresArchive(database), PostgresKeys(database)
        watch = StoreWatch({"redis": logs.ping, "postgres": database.ping}, _now, time.monotonic)
        await stack.enter_async_context(watch.watching())
        yield House(
            urls,
            logs=logs,
            hot=RedisHotLogs(redis),
            archive=archive,
            archived=archive,
            seals=archive,
            hints=RedisHints(subscriber),
            sessions=sessions,
            removals=sessions,
            messages=messages,
            chats=messages,
            tasks=tasks,
            queue=tasks,
            step_store=tasks,
            desk=operations,
            inbox=operations,
            operations=operations,
            directory=tasks,
            rows=tasks,
            backlogs=tasks,
            doorbell=RedisDoorbell(subscriber),
            keys=keys,
            token_key=keys,
            watch=watch,
            health=HealthRoutes(watch),
            tools=tools,
            letters=_dead_letters(settings),
        )


def _dead_letters(settings: Settings) -> DeadLetterBox:
    if settings.amqp_url is None:
        return NoDeadLetters()
    # Loaded only where it is used: its library takes a fifth of a second to import.
    rabbit, letters = import_module("service.adapters.rabbit"), import_module("service.adapters.rabbit_letters")
    box: DeadLetters = letters.DeadLetters(settings.amqp_url, rabbit.Names(), rabbit.Patience())
    return box


async def _check_stores(settings: Settings) -> None:
    """Ask the stores that are set, before an embedded one makes its data folder."""
    if settings.redis_url is not None:
        await check_redis(settings.redis_url)
    if settings.postgres_url is not None:
        await check_schema(settings.postgres_url)


async def _redis(stack: AsyncExitStack, url: str) -> Redis:
    redis = connect(url)
    stack.push_async_callback(redis.aclose)
    return redis


@asynccontextmanager
async def open_follower(house: House, settings: Settings) -> AsyncGenerator[Follower]:
    """The way out of all logs, hot and archived, for the readers of this process."""
    hints = MeteredHints(house.hints, house.metrics, _clock_ms)
    async with (
        hub(hints, tick_seconds=min(0.5, settings.heartbeat_seconds / 4)) as ear,
        log_pages(house.logs, time.monotonic) as pages,
        log_pages(house.archived, time.monotonic) as archived,
    ):
        facts = SharedFacts(house.directory)
        yield Follower(pages, archived, ear, facts, heartbeat_seconds=settings.heartbeat_seconds)


def make_prover(house: House) -> Prover:
    """What proves logs over the house's stores."""
    return Prover(house.logs, house.archived, house.seals, house.directory, house.rows)


def make_exporter(house: House, follower: Follower) -> Exporter:
    """What exports logs out of the house's stores."""
    return Exporter(follower, house.seals, house.directory)


def make_conversations(house: House, current_trace: CurrentTrace = untraced) -> Conversations:
    """What doors ask of sessions; it has nothing of its own to close."""
    return Conversations(house.sessions, house.messages, house.chats, house.doorbell, current_trace)


def make_tasks(house: House) -> Tasks:
    """What doors ask of tasks; it has nothing of its own to close."""
    return Tasks(house.tasks, house.doorbell)


@asynccontextmanager
async def open_app(
    house: House, settings: Settings, tracing: "Tracing | None" = None
) -> AsyncGenerator[web.Application]:
    """The doors over HTTP."""
    async with open_follower(house, settings) as follower:
        metrics, write_timeout_seconds = house.metrics, settings.write_timeout_seconds
        current_trace = untraced if tracing is None else tracing.current
        conversations, tasks = make_conversations(house, current_trace), make_tasks(house)
        streams = Streams(
            follower,
            conversations,
            heartbeat_seconds=settings.heartbeat_seconds,
            write_timeout_seconds=write_timeout_seconds,
            note_gap=metrics.gaps.inc,
            tracer=tracing,
        )
        metrics.watch_streams(lambda: streams.open_streams)
        prover, exporter = make_prover(house), make_exporter(house, follower)
        callers = await _callers(house, settings)
        yield make_app(
            SessionRoutes(conversations, tasks, streams),
            TaskRoutes(tasks, streams, callers),
            OperationRoutes(make_operations(house)),
            DeadLetterRoutes(house.letters),
            ChatRoutes(conversations, tasks, make_operations(house), streams),
            LogRoutes(tasks, follower, prover, exporter, write_timeout_seconds=write_timeout_seconds),
            streams,
            house.health,
            _metrics_routes(house),
            metrics,
            callers,
            is_local=not settings.asks_who,
            origins=settings.allowed_origins,
            tracer=tracing,
        )


@asynccontextmanager
async def open_probes(house: House, settings: Settings) -> AsyncGenerator[web.Application]:
    """What machines ask of a process without doors."""
    callers = await _callers(house, settings)
    yield make_probe_app(house.health, _metrics_routes(house), house.metrics, callers, is_local=not settings.asks_who)


def _metrics_routes(house: House) -> MetricsRoutes:
    return MetricsRoutes(house.metrics, CONTENT_TYPE, house.backlogs)


async def _callers(house: House, settings: Settings) -> Callers:
    """Who is known. Raises ConfigurationError where the issuer's keys are to be in a file, and are not."""
    keys, stream_tokens = Keys(house.keys, _now, time.monotonic), StreamTokens(house.token_key, _now)
    signatures = Signatures(house.tools, _now)
    return Callers(keys, await _bearer_tokens(settings), stream_tokens, signatures, is_local=not settings.asks_who)


async def _bearer_tokens(settings: Settings) -> BearerTokens | None:
    if settings.jwt_issuer is None or settings.jwt_audience is None:
        return None
    issued = partial(BearerTokens, issuer=settings.jwt_issuer, audience=settings.jwt_audience)
    if settings.jwt_secret is not None:
        return issued(settings.jwt_secret.encode())
    if settings.jwt_jwks is None:
        return None
    load = jwks_document(settings.jwt_jwks)
    if not is_url(settings.jwt_jwks):  # what a URL has may come later; a file that is no use now never will be
        try:
            keys_in(await load())
        except (IssuerUnavailable, ValueError) as error:
            raise ConfigurationError("PLAYHEAD_JWT_JWKS: there is no file with public keys that can be used") from error
    return issued(Jwks(load, time.monotonic))


@asynccontextmanager
async def open_keys(settings: Settings) -> AsyncGenerator[KeyStore]:
    """API keys alone, in the database that is set. Raises ConfigurationError, DatabaseUnavailable."""
    if settings.postgres_url is None:
        raise ConfigurationError(
            "PLAYHEAD_POSTGRES_URL: not set: it says which service's keys are meant; "
            "`playhead doctor` names that of a service with embedded stores"
        )
    await check_schema(settings.postgres_url)
    async with postgres_pool(settings.postgres_url, connections=1) as pool:
        yield PostgresKeys(Database(pool))


@asynccontextmanager
async def open_backlogs(postgres_url: str) -> AsyncGenerator[Backlogs]:
    """What is still to be done by the service that has this database. Raises DatabaseUnavailable."""
    async with postgres_pool(postgres_url, connections=1) as pool:
        yield PostgresTasks(Database(pool))


@asynccontextmanager
async def open_worker(house: House, settings: Settings, tracing: "Tracing | None" = None) -> AsyncGenerator[Worker]:
    """A worker with its model and its writer."""
    metrics = house.metrics
    logs: LogStore = MeteredLogs(house.logs, metrics, time.monotonic)
    queue, current_trace = MeteredQueue(house.queue, metrics), untraced
    if tracing is not None:
        logs, current_trace = TracedLogs(logs, tracing), tracing.current
    async with AsyncExitStack() as stack:
        plain_model = await stack.enter_async_context(open_model(settings))
        writer = await stack.enter_async_context(log_writer(logs, _clock_ms, current_trace))
        model: Model = MeteredModel(plain_model, metrics, time.monotonic)
        if tracing is not None:
            model = TracedModel(model, tracing)
        clock = Clock(now=_now, monotonic=time.monotonic, sleep=asyncio.sleep)
        services = await stack.enter_async_context(RemoteTools(_now, current_trace))
        remote = [_remote_operations(house, settings, services, tool) for tool in house.tools]
        commands = None if settings.workspace_dir is None else await _commands(stack, settings, settings.workspace_dir)
        turns = TaskRunner(
            writer=writer,
            logs=logs,
            queue=queue,
            desk=house.desk,
            messages=house.messages,
            step_store=house.step_store,
            steps=Steps(model, clock, random.random),
            tools=_toolbox(house, remote, has_jobs=commands is not None),
            clock=clock,
            jobs=Jobs(commands, house.desk, make_operations(house), Patience(asyncio.sleep), clock),
        )
        yield Worker(
            queue,
            turns if tracing is None else TracedTurns(turns, tracing),
            house.doorbell,
            time.monotonic,
            partial(house.watch.away_seconds, "redis"),
            lease_seconds=settings.lease_seconds,
        )


async def _commands(stack: AsyncExitStack, settings: Settings, workspace: Path) -> Commands:
    """Where background jobs run. One whose worker was lost is gone before another worker can have its lease."""
    grace_seconds = min(GRACE_SECONDS, settings.lease_seconds / 3)
    commands = Commands(workspace, open_at_once=AT_ONCE, grace_seconds=grace_seconds)
    hide_memory()
    return await stack.enter_async_context(commands)


def _toolbox(house: House, remote: Sequence[RemoteOperations], *, has_jobs: bool) -> Toolbox:
    patiently = Patience(asyncio.sleep)
    operations: list[OperationTool] = [ask(house.desk, patiently), timer(house.desk, patiently), *remote]
    if not has_jobs:
        return Toolbox([THINK], operations)

    def jobs_of(session_id: SessionId) -> Tool[Any]:
        return SessionJobs(make_operations(house), house.doorbell, session_id).tool

    return Toolbox([THINK], [*operations, start_job(house.desk, patiently)], [jobs_of])


def _remote_operations(house: House, settings: Settings, services: ServiceCalls, tool: RemoteTool) -> RemoteOperations:
    return RemoteOperations(
        tool,
        house.desk,
        house.inbox,
        services,
        Patience(asyncio.sleep),
        asyncio.sleep,
        why_not=ArgumentSchema(tool.schema).errors_of,
        callback_url=partial(callback_url, settings.public_url),
    )


def make_operations(house: House) -> Operations:
    """What doors ask of operations; it has nothing of its own to close."""
    return Operations(house.inbox, house.operations, house.doorbell)


def make_archiver(house: House, settings: Settings) -> Archiver:
    """An archiver over the house's stores; it has nothing of its own to close."""
    archivist = Archivist(house.logs, house.hot, house.archive, hot_ttl_seconds=settings.hot_ttl_seconds)
    return Archiver(archivist, Remover(house.removals, house.hot))


@asynccontextmanager
async def open_completions(house: House, amqp_url: str) -> AsyncGenerator[Completions]:
    """The door of completions over RabbitMQ, which need not be there yet: it is waited for."""
    # Loaded only where it is used: its library takes a fifth of a second to import.
    rabbit, intakes = import_module("service.adapters.rabbit"), import_module("service.adapters.rabbit_intake")
    names, patience = rabbit.Names(), rabbit.Patience()
    outlet: Outlet = rabbit.Outlet(amqp_url, names, patience)
    intake: Intake = intakes.Intake(amqp_url, names, outlet, _clock_ms, patience)
    metrics, gathering = house.metrics, Gathering(make_operations(house))
    completions = Completions(
        intake, gathering, _now, time.monotonic, lambda label: metrics.amqp_deliveries.labels(label).inc()
    )
    house.health.show_intake("amqp", completions.state)
    metrics.watch_intake(completions.state)
    try:
        yield completions
    finally:
        await gathering.close()
        await intake.close()
        await outlet.close()


@asynccontextmanager
async def open_tracing(settings: Settings) -> "AsyncGenerator[Tracing | None]":
    """Where spans go, where that is set. Raises ConfigurationError where the packages are missing."""
    if settings.otlp_url is None:
        yield None
        return
    try:
        adapter = import_module("service.adapters.tracing")
    except ImportError as error:
        raise ConfigurationError("PLAYHEAD_OTLP_URL: needs packages that are not here: the extra `otel`") from error
    async with adapter.open_tracing(settings.otlp_url) as tracing:
        yield tracing


@asynccontextmanager
async def open_model(settings: Settings) -> AsyncGenerator[Model]:
    """The configured endpoint, or the demo model."""
    if settings.model_url is None or settings.model is None:
        yield DemoModel()
        return
    # Loaded only where it is used: its SDK takes longer to import than all the rest of the house.
    adapter: type[OpenAIModel] = import_module("service.adapters.openai_model").OpenAIModel
    endpoint = adapter(settings.model_url, settings.model_key, settings.model, idle_seconds=settings.model_idle_seconds)
    async with endpoint as model:
        yield model


def _now() -> datetime:
    return datetime.now(UTC)


def _clock_ms() -> int:
    return time.time_ns() // 1_000_000
