"""What a Redis must be to keep logs, asked once at the start."""

import asyncio
import re
import socket
import ssl
from collections.abc import Mapping
from contextlib import suppress
from inspect import signature
from os import strerror
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import structlog
from redis import exceptions
from redis.asyncio import Redis
from redis.asyncio.connection import URL_QUERY_ARGUMENT_PARSERS, AbstractConnection

from service.adapters.redis_client import CALL_SECONDS, connect
from service.model.errors import ConfigurationError, StoreUnreachable

OLDEST: Final = 7
"""The oldest major version; Valkey says which Redis it is compatible with."""

OPTIONS: Final = frozenset(
    (
        *("db", "username", "password"),
        *("ssl_ca_certs", "ssl_ca_data", "ssl_ca_path", "ssl_certfile", "ssl_keyfile", "ssl_password"),
        *("ssl_cert_reqs", "ssl_check_hostname", "ssl_ciphers"),
    )
)
"""What may follow the `?` of the URL: where the database is and how to be let in, not how the client works."""

_NAMES: Final = frozenset(URL_QUERY_ARGUMENT_PARSERS) | frozenset(signature(AbstractConnection).parameters)
"""Options that the client has. Another name is not repeated: it may be the end of a password."""

log = structlog.get_logger()


async def check_redis(url: str) -> None:
    """Raises ConfigurationError where there is no Redis, or not one that keeps what it acknowledges.

    Warns of one that keeps it in memory alone: that may be wanted, with replicas or in a trial.
    """
    info = await redis_info(url)
    if fault := fault_of(info):
        raise _wrong(fault)
    if not info.get("aof_enabled"):
        log.warning("redis_keeps_no_append_only_file", risk="acknowledged events may be lost when its process dies")


def fault_of(info: Mapping[str, Any]) -> str | None:
    """Why the server that gave this INFO cannot keep logs; None where it can."""
    version, role, policy = (str(info.get(name, "")) for name in ("redis_version", "role", "maxmemory_policy"))
    major = re.match(r"\d+", version)
    if major is None or int(major[0]) < OLDEST:
        return f"Redis {OLDEST}.0 or later is needed, this is version {version or 'unknown'}"
    if role != "master":
        return f"a primary is needed, this is a {role or 'server of another kind'}"
    if policy != "noeviction":
        return (
            f"its maxmemory-policy is {policy or 'not told'}, so it may drop logs when memory is short: "
            "set maxmemory-policy to noeviction"
        )
    return None


async def redis_info(url: str) -> Mapping[str, Any]:
    """What the server says of itself (INFO). Raises ConfigurationError, StoreUnreachable."""
    redis = _client(url)
    try:
        async with asyncio.timeout(CALL_SECONDS):
            info: Mapping[str, Any] = await redis.info()
            return info
    except (exceptions.ResponseError, exceptions.AuthenticationError) as error:
        raise _wrong(_in_words(error)) from error
    except (exceptions.RedisError, OSError) as error:
        raise StoreUnreachable(f"PLAYHEAD_REDIS_URL: {_in_words(error)}") from error
    except (TypeError, ValueError) as error:  # of `ssl_…`, which the client gives its connections as they stand
        raise _wrong("an option after the ? of the URL is not for this kind of URL, or has a wrong value") from error
    finally:
        await redis.aclose()


def _client(url: str) -> Redis:
    # The reason is not repeated: where a password breaks the URL, it holds a piece of it.
    with suppress(ValueError):
        parts = urlsplit(url)
        _refuse_options(parts.query)
        if parts.scheme == "unix" or re.fullmatch(r"(/\d*)?", parts.path):  # else the client takes database 0
            return connect(url)
    raise _wrong(
        "the URL cannot be read: redis://user:password@host:port/number is expected, "
        "with special characters of the password percent-encoded"
    )


def _refuse_options(query: str) -> None:
    for name in parse_qs(query, keep_blank_values=True):
        if name not in OPTIONS:
            known = f"the URL must not set {name}" if name in _NAMES else "the URL has an option that there is not"
            raise _wrong(f"{known}: after its ? may stand db, username, password and ssl_…")


def _wrong(what: str) -> ConfigurationError:
    return ConfigurationError(f"PLAYHEAD_REDIS_URL: {what}")


def _in_words(error: BaseException) -> str:
    """What is wrong, in our words: a server's own may repeat what it was sent, which is a password."""
    if isinstance(error.__cause__, exceptions.RedisError):  # over a Unix socket the client wraps them
        return _in_words(error.__cause__)
    match error:
        case exceptions.AuthenticationError():
            return "the Redis refuses the user or the password"
        case exceptions.NoPermissionError():
            return "the Redis does not allow this user to select the database or to run INFO"
        case exceptions.BusyLoadingError():
            return "the Redis is still loading its data"
        case exceptions.ResponseError() if "DB index" in str(error):
            return "the Redis has no database of this number"
        case exceptions.ResponseError():
            return "the Redis refuses to answer"
        case exceptions.TimeoutError() | TimeoutError():
            return f"nothing answers within {CALL_SECONDS:.0f} seconds (or not with TLS, where it is rediss://)"
    match error.__context__ or error:
        case ssl.SSLError() as failed:
            reason = getattr(failed, "reason", None) or "no reason given"  # one of Python's own has none
            return f"no TLS with this server: {reason.replace('_', ' ').lower()}"
        case socket.gaierror(strerror=reason):
            return f"the Redis cannot be reached: {reason}"
        case OSError(errno=int(number)) as failed if not isinstance(failed, ConnectionResetError):
            return f"the Redis cannot be reached: {strerror(number)}"
        case _:
            return "what answers there is no Redis, or only one side speaks TLS (rediss://)"
