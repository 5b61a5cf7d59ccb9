"""What `playhead doctor` looks at: settings, stores, the model, the service, and how far behind it is."""

import asyncio
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final, Literal

from service.adapters.embedded import running_stores
from service.adapters.postgres_schema import KNOWN_VERSION, database_facts
from service.adapters.redis_check import fault_of, redis_info
from service.cli.doors import service_at, service_url
from service.cli.exits import UNREACHABLE, code_of
from service.cli.listing import in_words
from service.client import Forbidden, Playhead, Unauthenticated
from service.model.errors import PlayheadError, StoreUnavailable
from service.model.task import Backlog
from service.settings import PREFIX, Settings, sources
from service.wiring import open_backlogs, without_password

State = Literal["ok", "wrong", "unreachable"]

ARCHIVE_LATE_SECONDS: Final = 300.0
"""An archiver that works and reaches both stores is done with a log in seconds."""

_STORE_URLS: Final = ("redis_url", "postgres_url")
_OTHER_URLS: Final = ("amqp_url", "model_url", "url", "jwt_jwks")


@dataclass(frozen=True, slots=True)
class SettingShown:
    """A setting as people may see it, and where it comes from."""

    name: str
    value: str
    source: str


@dataclass(frozen=True, slots=True)
class Looked:
    """What was found of one thing that the service needs, or is."""

    name: str
    state: State
    detail: str
    """A line for people."""
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What was found."""

    settings: Sequence[SettingShown]
    looked: Sequence[Looked]
    backlog: Backlog | None
    """None where the database cannot be asked."""
    embedded: Mapping[str, str]
    """What a second process sets to ask the embedded stores of the service that runs on this data folder."""


async def diagnose(settings: Settings, url: str | None) -> Diagnosis:
    """Look at everything at once; changes nothing. What does not answer is told after some seconds."""
    running = running_stores(settings.data_dir)
    redis_url, postgres_url = settings.redis_url or running.redis, settings.postgres_url or running.postgres
    redis, (postgres, backlog), service = await asyncio.gather(
        _redis(redis_url), _postgres(postgres_url), _service(settings, url)
    )
    embedded = {
        f"{PREFIX}{name.upper()}": where
        for name, where in zip(_STORE_URLS, (running.redis, running.postgres), strict=True)
        if where is not None and getattr(settings, name) is None
    }
    looked = redis, postgres, _model(settings), service, *_late(backlog)
    return Diagnosis(shown_settings(settings), looked, backlog, embedded)


def _late(backlog: Backlog | None) -> Iterator[Looked]:
    """What is behind for so long that it is no delay."""
    oldest = None if backlog is None else backlog.oldest_unarchived_seconds
    if oldest is not None and oldest > ARCHIVE_LATE_SECONDS:
        detail = f"a log has waited for it for {in_words(oldest)}: is one running? Its log says what it could not do"
        yield Looked("archiver", "wrong", detail, {"oldest_unarchived_seconds": oldest})


def shown_settings(settings: Settings) -> list[SettingShown]:
    """All settings by their names in the environment, without what is secret."""
    return [
        SettingShown(PREFIX + name.upper(), _masked(name, getattr(settings, name)), source)
        for name, source in sources().items()
    ]


def _masked(name: str, value: object) -> str:
    """What may be shown of a setting. Whatever no representation has is shown only as far as it is an address."""
    if value is None or value == "":
        return ""
    if not Settings.model_fields[name].repr:
        return _address(name, str(value)) if name in (*_STORE_URLS, *_OTHER_URLS) else "***"
    return str(value)


def _address(name: str, url: str) -> str:
    if name in _STORE_URLS:
        return without_password(url)
    place, asks, _ = re.sub(r"://.*@", "://***@", url).partition("?")
    return place + ("?***" if asks else "")


async def _redis(url: str | None) -> Looked:
    if url is None:
        return _nobody("redis")
    try:
        info = await redis_info(url)
    except PlayheadError as error:
        return _failed("redis", error)
    product = "Valkey" if "valkey_version" in info else "Redis"
    version = str(info.get("valkey_version") or info.get("redis_version"))
    facts = {
        "product": product,
        "version": version,
        "append_only_file": bool(info.get("aof_enabled")),
        "maxmemory_policy": info.get("maxmemory_policy"),
        "used_bytes": info.get("used_memory"),
        "max_bytes": info.get("maxmemory") or None,
    }
    kept = "with its append-only file" if facts["append_only_file"] else "without an append-only file: in memory alone"
    most = f" of {_mebibytes(facts['max_bytes'])}" if facts["max_bytes"] else ""
    detail = f"{product} {version}, {kept}, {facts['maxmemory_policy']}, {_mebibytes(facts['used_bytes'])}{most} used"
    return _judged("redis", detail, facts, fault_of(info))


async def _postgres(url: str | None) -> tuple[Looked, Backlog | None]:
    if url is None:
        return _nobody("postgres"), None
    try:
        found = await database_facts(url)
    except PlayheadError as error:
        return _failed("postgres", error), None
    facts = asdict(found)
    fault = facts.pop("fault")
    kept = "fsync on" if found.fsync else "fsync off: what it acknowledged may be lost"
    detail = f"PostgreSQL {found.version}, {kept}, synchronous_commit {found.synchronous_commit}"
    looked = _judged("postgres", f"{detail}, schema version {found.schema_version}", facts, fault)
    if found.schema_version != KNOWN_VERSION:
        return looked, None
    try:
        async with open_backlogs(url) as backlogs:
            return looked, await backlogs.backlog()
    except StoreUnavailable as error:
        return _failed("postgres", error), None


def _model(settings: Settings) -> Looked:
    if settings.model_url is None:
        return Looked("model", "ok", "the demo model: no endpoint is set", {"model": "demo", "url": None})
    url = _masked("model_url", settings.model_url)
    detail = f"{settings.model} at {url} (not asked)"
    return Looked("model", "ok", detail, {"model": settings.model, "url": url})


async def _service(settings: Settings, url: str | None) -> Looked:
    try:
        where = url or service_url(settings)
        service = service_at(where, settings.token or None, settings)
    except PlayheadError as error:  # it may not be repeated
        return _failed("service", error)
    try:
        async with service as playhead:
            answer = await playhead.ready()
            refused = await _refusal(playhead) if answer.get("status") == "ok" else None
    except PlayheadError as error:
        failed = _failed("service", error)
        return replace(failed, detail=f"{where}: {failed.detail}", facts={"url": where})
    status, dependencies = str(answer.get("status")), answer.get("dependencies")
    facts = {"url": where, "status": status, "dependencies": dependencies}
    if status == "ok":
        return _judged("service", f"ready at {where}", facts, refused)
    away = [name for name, found in _items(dependencies) if found != {"status": "ok"}]
    told = f": it does not reach {', '.join(away)}" if away else ""
    return Looked("service", "unreachable", f"{status} at {where}{told}", facts)


async def _refusal(playhead: Playhead) -> str | None:
    """Why it does not answer who asks with this token, or with none; None where it does."""
    try:
        await anext(playhead.tasks(limit=1), None)
    except Unauthenticated:
        return "PLAYHEAD_TOKEN is not taken there; see `playhead keys`"
    except Forbidden:
        pass  # a key that may only write, or complete
    return None


def _items(dependencies: object) -> list[tuple[str, Any]]:
    return list(dependencies.items()) if isinstance(dependencies, dict) else []


def _judged(name: str, detail: str, facts: Mapping[str, Any], fault: str | None) -> Looked:
    return Looked(name, "ok", detail, facts) if fault is None else Looked(name, "wrong", f"{detail}: {fault}", facts)


def _nobody(name: str) -> Looked:
    return Looked(name, "unreachable", f"{PREFIX}{name.upper()}_URL is not set, and no service runs on the data folder")


def _failed(name: str, error: PlayheadError) -> Looked:
    return Looked(name, "unreachable" if code_of(error) == UNREACHABLE else "wrong", str(error))


def _mebibytes(count: Any) -> str:
    return f"{count / 1024 / 1024:.1f} MiB" if isinstance(count, int) else "an unknown part"
