"""The peer in C: nginx with Nchan, one worker process, with its memory store and with its Redis store."""

import asyncio
import os
import shutil
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from service.model.encoding import encode
from tests.bench.ground import Ground
from tests.bench.ours import CHUNKS, EVENT_BYTES
from tests.bench.processes import free_port, listening, started

Store = Literal["memory", "redis"]

MODULES: Final = (Path("/usr/lib/nginx/modules"), Path("/usr/lib64/nginx/modules"), Path("/usr/local/nginx/modules"))
KEPT_EVENTS: Final = 100_000

_CONF: Final = """\
load_module {module};
{user}
daemon off;
worker_processes 1;
worker_rlimit_nofile 8192;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
events {{ worker_connections 8192; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  keepalive_requests 100000000;
  nchan_shared_memory_size 512M;
  upstream store {{ nchan_redis_server {redis_url}; }}
  server {{
    listen 127.0.0.1:{port} backlog=2048;
    nchan_message_buffer_length {kept}; nchan_message_timeout 10m; nchan_subscriber_first_message oldest;
    location ~ ^/memory/pub/(\\w+)$ {{ nchan_publisher; nchan_channel_id m$1; }}
    location ~ ^/memory/sub/(\\w+)$ {{ nchan_subscriber eventsource; nchan_channel_id m$1; }}
    location ~ ^/redis/pub/(\\w+)$ {{ nchan_publisher; nchan_channel_id r$1; nchan_redis_pass store; }}
    location ~ ^/redis/sub/(\\w+)$ {{ nchan_subscriber eventsource; nchan_channel_id r$1; nchan_redis_pass store; }}
  }}
}}
"""


@dataclass(frozen=True, slots=True)
class Nchan:
    """A running nginx."""

    port: int

    @staticmethod
    def path(store: Store, channel: str) -> str:
        """Where a channel can be followed."""
        return f"/{store}/sub/{channel}"

    @asynccontextmanager
    async def publisher(self, store: Store, channel: str) -> AsyncGenerator["Publisher"]:
        """A connection that is kept alive."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            yield Publisher(reader, writer, f"/{store}/pub/{channel}")
        finally:
            writer.close()


class Publisher:
    """Publishes over one connection, one event after the other, with as little work as can be."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str) -> None:
        self._reader = reader
        self._writer = writer
        self._head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {EVENT_BYTES}\r\n\r\n".encode()

    async def append(self, event: bytes = encode(CHUNKS[0])) -> None:
        """Publish one event of EVENT_BYTES; returns when Nchan has said that it has it."""
        self._writer.write(self._head + event)
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        assert head.startswith((b"http/1.1 201", b"http/1.1 202")), head
        _, _, rest = head.partition(b"content-length: ")
        await self._reader.readexactly(int(rest[: rest.index(b"\r")]))


def find_nchan() -> tuple[str, Path] | None:
    """nginx and its module; None where one is missing."""
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    module = next((m for folder in MODULES if (m := folder / "ngx_nchan_module.so").exists()), None)
    return None if nginx is None or module is None else (nginx, module)


@asynccontextmanager
async def serving_nchan(ground: Ground) -> AsyncGenerator[Nchan | None]:
    """nginx as a process; None where it cannot be had."""
    found = find_nchan()
    if found is None:
        yield None
        return
    nginx, module = found
    folder, port = ground.folder / "nginx", free_port()
    folder.mkdir(exist_ok=True)
    conf, log = folder / "nginx.conf", folder / "output.log"
    conf.write_text(
        _CONF.format(
            module=module,
            user="user root;" if os.geteuid() == 0 else "",
            folder=folder,
            redis_url=ground.redis_url,
            port=port,
            kept=KEPT_EVENTS,
        )
    )
    async with started([nginx, "-c", str(conf), "-p", str(folder)], log, cwd=folder) as process:
        await listening(process, port, log)
        await asyncio.sleep(0.5)  # until it has said hello to Redis
        yield Nchan(port)
