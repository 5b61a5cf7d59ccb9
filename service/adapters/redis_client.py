"""How this house talks to Redis and Valkey: no retries of the library's own, a bound on everything."""

from typing import Final

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from service.model.errors import LogUnavailable, PlayheadError

CALL_SECONDS: Final = 5.0
"""The deadline of one call, connecting and waiting for a connection included."""

FOREIGN: Final[dict[type[BaseException], type[PlayheadError]]] = {
    RedisError: LogUnavailable,
    OSError: LogUnavailable,  # TimeoutError is one
}


def connect(url: str, *, connections: int = 32) -> Redis:
    """A client that connects when it is first used.

    A caller beyond `connections` waits for a free one within its own deadline. Nothing is retried here: a retried XADD
    is stored twice, and a silent reconnect of a subscriber is a lost hint.
    """
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=connections,
        timeout=CALL_SECONDS,
        protocol=2,
        retry=Retry(NoBackoff(), 0),
        socket_timeout=CALL_SECONDS,
        socket_connect_timeout=CALL_SECONDS,
    )
    return Redis.from_pool(pool)
