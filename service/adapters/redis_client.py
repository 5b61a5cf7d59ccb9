"""How this house talks to Redis and Valkey: no retries of the library's own, a bound on everything."""

from typing import Any, Final

import structlog
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from service.model.errors import LogUnavailable, PlayheadError

log = structlog.get_logger()

CALL_SECONDS: Final = 5.0
"""The deadline of one call, connecting and waiting for a connection included."""

FOREIGN: Final[dict[type[BaseException], type[PlayheadError]]] = {
    RedisError: LogUnavailable,
    OSError: LogUnavailable,  # TimeoutError is one
}


def connect(url: str, *, connections: int = 32) -> Redis:
    """A client that connects when it is first used.

    A caller beyond `connections` waits for a free one within its own deadline. Nothing is retried here: a retried XADD
    is stored twice, and a silent reconnect of a subscriber is a lost hint. Every call has its deadline from its caller
    (`asyncio.timeout`), so the library sets none on the socket: it does so by `asyncio.wait_for` around each write,
    which on Python 3.11 can swallow a cancellation, and its writer then never ends.
    """
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=connections,
        timeout=CALL_SECONDS,
        protocol=2,
        retry=Retry(NoBackoff(), 0, supported_errors=()),  # with any, even 0 retries reconnect once
        socket_timeout=None,
        socket_connect_timeout=CALL_SECONDS,
    )
    return with_plain_pages(Redis.from_pool(pool))


async def leave_server(redis: Redis) -> None:
    """What answers is no primary any more: whoever has its address now is found by new connections only.

    Those that others are using stay until a write meets the same server over them.
    """
    log.warning("redis_was_demoted")
    await redis.connection_pool.disconnect(inuse_connections=False)


def with_plain_pages(redis: Redis) -> Redis:
    """The same client, whose XRANGE answers as the store does: `[[position, [field, value, …]], …]`."""
    redis.set_response_callback("XRANGE", _as_it_came)
    return redis


def _as_it_came(response: Any, **kwargs: Any) -> Any:
    """A page of a stream is long: its entries stay lists, and no dictionary is made for each."""
    return response
