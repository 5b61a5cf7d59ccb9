"""Which Redis is taken at the start, and how each other one is refused: one line that names the setting."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict

from service.adapters import redis_check
from service.adapters.redis_check import check_redis, fault_of
from service.adapters.redis_client import connect
from service.model.errors import ConfigurationError
from service.wiring import StoreUrls
from tests.adapters.valkeys import own_valkey

SECRET = "hunter2"
GOOD = {"redis_version": "7.0.0", "role": "master", "maxmemory_policy": "noeviction", "aof_enabled": 1}


async def taken(url: str) -> list[EventDict]:
    """What is logged while the Redis there is taken."""
    with capture_logs() as logs:
        await check_redis(url)
    return list(logs)


async def refused(url: str) -> str:
    """Why the Redis there is refused: what stands behind the setting's name."""
    with capture_logs() as logs, pytest.raises(ConfigurationError) as raised:
        await check_redis(url)
    line = str(raised.value)
    assert line.startswith("PLAYHEAD_REDIS_URL: ")
    assert "\n" not in line
    assert len(line) < 200
    assert SECRET not in line
    assert logs == []
    return line.removeprefix("PLAYHEAD_REDIS_URL: ")


# --- taken ------------------------------------------------------------------------------------------------------------


async def test_the_embedded_valkey_is_taken_without_a_word(stores: StoreUrls) -> None:
    assert await taken(stores.redis) == []


async def test_a_redis_7_is_taken(redis7_url: str) -> None:
    redis = connect(redis7_url)
    keeps = (await redis.info("persistence"))["aof_enabled"]
    await redis.aclose()
    assert len(await taken(redis7_url)) == (0 if keeps else 1)


async def test_one_without_an_append_only_file_is_taken_with_a_warning() -> None:
    async with own_valkey("--appendonly", "no") as valkey:
        (warning,) = await taken(valkey.url())
    assert (warning["log_level"], warning["event"]) == ("warning", "redis_keeps_no_append_only_file")
    assert "lost" in warning["risk"]


@pytest.mark.parametrize("version", ["7.0.0", "7.2.4", "8.1", "10.0.0", "255.255.255"])
def test_versions_from_7_on_are_taken(version: str) -> None:
    assert fault_of(GOOD | {"redis_version": version}) is None


# --- refused for what it is -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-lru", "volatile-ttl"])
async def test_pitfall_67_one_that_evicts_is_refused_and_told_what_to_set(policy: str) -> None:
    async with own_valkey("--maxmemory-policy", policy) as valkey:
        line = await refused(valkey.url())
    assert f"its maxmemory-policy is {policy}" in line
    assert line.endswith("set maxmemory-policy to noeviction")


@pytest.mark.parametrize("version", ["6.2.14", "5.0.7", "", "unknown"])
def test_an_older_version_is_refused(version: str) -> None:
    fault = fault_of(GOOD | {"redis_version": version})
    assert fault is not None
    assert fault.startswith("Redis 7.0 or later is needed, this is version ")
    assert fault.endswith(version or "unknown")


async def test_a_replica_is_refused() -> None:
    async with own_valkey("--replicaof", "127.0.0.1", "1") as valkey:
        assert await refused(valkey.url()) == "a primary is needed, this is a slave"


def test_a_server_that_does_not_say_what_it_is_is_refused() -> None:
    """A Sentinel has neither a role nor a policy; a proxy may keep the policy to itself."""
    sentinel: dict[str, Any] = {"redis_version": "7.0.15"}
    assert fault_of(sentinel) == "a primary is needed, this is a server of another kind"
    assert "maxmemory-policy is not told" in (fault_of(sentinel | {"role": "master"}) or "")


# --- refused by it ----------------------------------------------------------------------------------------------------


async def test_a_wrong_user_or_password_is_refused_and_the_right_one_is_taken() -> None:
    async with own_valkey("--requirepass", SECRET) as valkey:
        assert await taken(valkey.url(f":{SECRET}")) == []
        for user in ("", ":wrong", f"nobody:{SECRET}"):
            assert await refused(valkey.url(user)) == "the Redis refuses the user or the password"


async def test_a_password_where_none_is_set_is_refused(stores: StoreUrls) -> None:
    url = stores.redis.replace("unix://", f"unix://:{SECRET}@")
    assert await refused(url) == "the Redis refuses the user or the password"


async def test_a_user_that_may_not_ask_is_told_so() -> None:
    async with own_valkey("--user", "app", "on", f">{SECRET}", "~*", "&*", "+@all", "-info") as valkey:
        line = await refused(valkey.url(f"app:{SECRET}"))
    assert line == "the Redis does not allow this user to select the database or to run INFO"


async def test_a_database_that_there_is_not_is_refused(stores: StoreUrls) -> None:
    assert await taken(f"{stores.redis}?db=15") == []
    assert await refused(f"{stores.redis}?db=16") == "the Redis has no database of this number"


# --- not a Redis ------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def server(answer: bytes | None, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """Host and port of a server that answers so to whatever it is sent, and hangs up; None: not at all."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if await reader.read(4096) and answer is not None:
                writer.write(answer)
                await writer.drain()
            else:
                await reader.read()
        except OSError:
            pass
        finally:
            writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    async with listening:
        yield "{}:{}".format(*listening.sockets[0].getsockname())


MISMATCH = "what answers there is no Redis, or only one side speaks TLS (rediss://)"


@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"", b"\x15\x03\x03\x00\x02\x02\x46", b"\n" * 9],
    ids=["http", "nothing", "tls alert", "lines"],
)
async def test_a_server_that_is_no_redis_is_refused(answer: bytes) -> None:
    async with server(answer) as place:
        assert await refused(f"redis://:{SECRET}@{place}/0") == MISMATCH


@pytest.mark.parametrize("answer", [b"+OK\r\n", b":1\r\n", b"*-1\r\n", b"$-1\r\n", b"*1\r\n*0\r\n"], ids=repr)
async def test_a_server_that_answers_as_no_redis_does_is_refused(answer: bytes) -> None:
    async with server(answer * 9) as place:
        await refused(f"redis://{place}/0")
        await refused(f"redis://:{SECRET}@{place}/1")


async def test_a_server_that_repeats_what_it_was_sent_is_not_repeated() -> None:
    async with server(f"-ERR unknown command 'AUTH', with args beginning with: '{SECRET}'\r\n".encode() * 9) as place:
        assert await refused(f"redis://:{SECRET}@{place}/0") == "the Redis refuses to answer"


async def test_tls_on_one_side_only_is_refused() -> None:
    async with server(b"", ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)) as place:
        assert await refused(f"redis://{place}/0") == MISMATCH
    async with server(b"-ERR Protocol error\r\n") as place:
        assert await refused(f"rediss://{place}/0") == "no TLS with this server: wrong version number"


async def test_silence_has_its_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without TLS and with it: a Redis takes the greeting of TLS for the beginning of a command, and waits."""
    monkeypatch.setattr(redis_check, "CALL_SECONDS", 1.0)
    async with server(None) as place:
        lines = await asyncio.gather(refused(f"redis://{place}/0"), refused(f"rediss://{place}/0"))
    assert set(lines) == {"nothing answers within 1 seconds (or not with TLS, where it is rediss://)"}


# --- nothing there ----------------------------------------------------------------------------------------------------


async def test_a_closed_port_and_a_missing_socket_are_told(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for host in ("127.0.0.1", "localhost"):
        assert (await refused(f"redis://u:{SECRET}@{host}:{port}/0")).startswith("the Redis cannot be reached")
    assert await refused(f"unix://{tmp_path}/none.sock") == "the Redis cannot be reached: No such file or directory"


@pytest.mark.parametrize(
    "url",
    [
        f"redis://u:{SECRET}/1@127.0.0.1:6379/0",
        f"redis://u:{SECRET}@127.0.0.1:70000/0",
        f"redis://u:{SECRET}@[::1/0",
        f"redis://u:{SECRET}@127.0.0.1:6379/zero",
        f"redis://u:{SECRET}@127.0.0.1:6379/0/1",
        f"redis://u:{SECRET}@127.0.0.1:6379?db={SECRET}",
    ],
)
async def test_a_url_that_cannot_be_read_is_not_repeated(url: str) -> None:
    assert (await refused(url)).startswith("the URL cannot be read: ")


async def test_an_option_that_there_is_not_is_refused(stores: StoreUrls) -> None:
    assert (await refused(f"{stores.redis}?{SECRET}=1")).startswith("the URL has an option that there is not")
    assert "not for this kind of URL" in await refused(f"{stores.redis}?ssl_cert_reqs=none")


@pytest.mark.parametrize(
    "option",
    ["decode_responses=true", "encoding=foo", "retry=1", "max_connections=1", "socket_timeout=1", "client_name=x"],
)
async def test_an_option_that_is_the_client_s_business_is_refused_by_name(stores: StoreUrls, option: str) -> None:
    """The client would take it, and fail later or answer in other types."""
    line = await refused(f"{stores.redis}?db=1&{option}")
    assert line.startswith(f"the URL must not set {option.partition('=')[0]}")


@pytest.mark.parametrize(
    "option",
    [
        "ssl_cert_reqs=maybe",
        "ssl_ca_certs=/no/such",
        "ssl_ca_path=/no/such",
        "ssl_certfile=/no/such",
        "ssl_ca_data=x",
        "ssl_ciphers=x",
        "ssl_check_hostname=x",
    ],
)
async def test_a_wrong_option_for_tls_is_refused(option: str) -> None:
    async with server(b"", ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)) as place:
        await refused(f"rediss://{place}/0?{option}")
