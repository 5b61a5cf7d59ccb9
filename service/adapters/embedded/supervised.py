"""A server that answers: started until it does, watched, started again when it dies, stopped cleanly."""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

import structlog

from service.adapters.embedded.kept import Ground, KeptProcess, Program, start_kept
from service.model.errors import ConfigurationError

READY_SECONDS = 60.0
POLL_SECONDS = 0.01
RESTART_WINDOW_SECONDS = 60.0
# The pause before each restart within the window. A killed Postgres needs some: its children must let go first.
RESTART_PAUSES_SECONDS = (0.0, 0.5, 1.0, 2.0, 4.0)

log = structlog.get_logger()


class SupervisedServer:
    """One server. `answers` asks it once and says whether it is ready; it must not raise for a server that is not.

    After `start`, a server that dies is started again on the same sockets and data: at most five times a minute, after
    growing pauses (`pauses` names them, in seconds). Then it is left down, which is logged once
    (`embedded_server_left_down`).
    """

    def __init__(
        self,
        program: Program,
        ground: Ground,
        answers: Callable[[], Awaitable[bool]],
        pauses: Sequence[float] = RESTART_PAUSES_SECONDS,
    ) -> None:
        self.program = program
        self._pauses = pauses
        self._ground = ground
        self._answers = answers
        self._kept: KeptProcess | None = None
        self._watcher: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start, and return when it answers. Raises ConfigurationError at once when it ends instead, or after 60 s."""
        await self._launch()
        self._watcher = asyncio.create_task(self._watch(), name=f"watch-{self.program.name}")

    def ask_to_stop(self) -> None:
        """Stop watching and cut the tie, without waiting."""
        if self._watcher is not None:
            self._watcher.cancel()
        if self._kept is not None:
            self._kept.ask_to_stop()

    async def stop(self) -> None:
        """Stop it and wait until it is gone; bounded. Raises what a broken watcher raised, if it did."""
        self.ask_to_stop()
        if self._watcher is not None:
            await asyncio.wait([self._watcher])
        if self._kept is not None:  # asked again: the watcher may have started a new one meanwhile
            await self._kept.stop()
        if self._watcher is not None and not self._watcher.cancelled():
            self._watcher.result()

    async def _launch(self) -> None:
        kept = self._kept = await start_kept(self.program, self._ground)
        name = self.program.name
        try:
            async with asyncio.timeout(READY_SECONDS):
                while not await self._answers():
                    if kept.is_gone:
                        raise ConfigurationError(f"{name} cannot start: {kept.last_words()}")
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError:
            await kept.stop()
            raise ConfigurationError(
                f"{name} did not answer within {READY_SECONDS:.0f} seconds: {kept.last_words()}"
            ) from None

    async def _watch(self) -> None:
        restarts: deque[float] = deque(maxlen=len(self._pauses))
        died: KeptProcess | None = None
        while (kept := self._kept) is not None:
            code = await kept.wait()
            server, now = self.program.name, time.monotonic()
            if kept is not died:
                died = kept
                log.error("embedded_server_died", server=server, code=code, reason=kept.last_words())
            recent = sum(now - at < RESTART_WINDOW_SECONDS for at in restarts)
            if recent == len(self._pauses):
                log.error("embedded_server_left_down", server=server, restarts=recent, window_s=RESTART_WINDOW_SECONDS)
                return
            await asyncio.sleep(self._pauses[recent])
            restarts.append(now)
            try:
                await kept.last_is_gone()
                await self._launch()
            except (ConfigurationError, OSError) as error:  # TimeoutError is one
                log.error("embedded_server_restart_failed", server=server, reason=str(error))
            except Exception:
                # The edge of the watch: whatever it was, the server is still tried again, or left down with a word.
                log.exception("embedded_server_restart_failed", server=server)
            else:
                log.info("embedded_server_restarted", server=server, took_s=round(time.monotonic() - now, 3))
