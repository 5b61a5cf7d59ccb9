"""A RabbitMQ of a test's own, from Debian's package, which can be killed and started again on what it kept."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest

from service.adapters.rabbit import asking, open_line
from service.model.errors import BrokerUnavailable
from tests.processes import free_port

SERVER: Final = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
START_SECONDS: Final = 60.0

needs_rabbitmq_server = pytest.mark.skipif(
    not SERVER.exists() or shutil.which("epmd") is None or shutil.which("setpriv") is None,
    reason="needs Debian's rabbitmq-server: no broker can be killed",
)


class Broker:
    """One node, on loopback, in a folder."""

    def __init__(self, folder: Path, names_port: int) -> None:
        self._folder = folder
        self.port = free_port()
        self._process: asyncio.subprocess.Process | None = None
        (folder / "env.conf").touch()
        (folder / "enabled_plugins").write_text("[].\n")
        self._environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(folder),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(names_port),
            "RABBITMQ_NODENAME": "own@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1} +sbwt none",
            "RABBITMQ_CONF_ENV_FILE": str(folder / "env.conf"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RUNNING_UNDER_SYSTEMD": "true",  # the script becomes the server: it is no child of the one that we kill
        }

    @property
    def url(self) -> str:
        return self.url_by(self.port)

    def url_by(self, port: int) -> str:
        """By another port of this machine."""
        return f"amqp://guest:guest@127.0.0.1:{port}/"

    async def start(self) -> None:
        """On what it kept; it answers when this returns."""
        with (self._folder / "output").open("ab") as output:
            self._process = await _dies_with_us(SERVER, env=self._environment, cwd=self._folder, stdout=output)
        async with asyncio.timeout(START_SECONDS):
            while not await self._answers():
                assert self._process.returncode is None, (self._folder / "output").read_text()
                await asyncio.sleep(0.1)  # a foreign process sends us no signal

    async def kill(self) -> None:
        """SIGKILL; returns when it is gone."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def _answers(self) -> bool:
        try:
            async with asking(5):
                line = await open_line(self.url, confirms=False)
        except BrokerUnavailable:
            return False
        await line.close()
        return True


@asynccontextmanager
async def broker_in(folder: Path) -> AsyncIterator[Broker]:
    """One that is still to be started; gone at the end of the block, and so is the server of names that it asks."""
    folder.mkdir()
    names_port = free_port()
    names = await _dies_with_us("epmd", "-port", str(names_port), "-address", "127.0.0.1")
    broker = Broker(folder, names_port)
    try:
        yield broker
    finally:
        await broker.kill()
        names.kill()
        await names.wait()


async def _dies_with_us(*command: str | Path, **more: object) -> asyncio.subprocess.Process:
    tied = ("setpriv", "--pdeathsig", "KILL", *command)
    given = {"stdin": asyncio.subprocess.DEVNULL, "stderr": asyncio.subprocess.STDOUT} | more
    return await asyncio.create_subprocess_exec(*tied, start_new_session=True, **given)  # type: ignore[arg-type]
