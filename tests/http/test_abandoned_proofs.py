"""Who hangs up while a proof waits for its turn has it not made: those behind wait for nobody who has gone."""

import asyncio
import socket
import struct
from urllib.parse import urlsplit

import pytest

from service.http.logs import PROOFS_AT_ONCE
from service.model.ids import TaskId
from service.model.verdict import Verdict
from service.registry.proof import Prover
from tests.http.memory import Doors, opened
from tests.http.wire import ask


async def test_a_proof_that_nobody_waits_for_is_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    prove, begun, go_on, all_begun = Prover.prove, 0, asyncio.Event(), asyncio.Event()

    async def held(prover: Prover, task_id: TaskId) -> Verdict:
        nonlocal begun
        begun += 1
        if begun == PROOFS_AT_ONCE:
            all_begun.set()
        await go_on.wait()
        return await prove(prover, task_id)

    monkeypatch.setattr(Prover, "prove", held)
    async with opened(has_logs=True) as doors:
        path = f"/tasks/{doors.task_id}/verify"
        first = [asyncio.create_task(ask(doors.url, "GET", path)) for _ in range(PROOFS_AT_ONCE)]
        await asyncio.wait_for(all_begun.wait(), 10)
        await _hang_up_while_waiting(doors, path, 20)
        patient = asyncio.create_task(ask(doors.url, "GET", path))
        go_on.set()
        answers = await asyncio.gather(*first, patient)
    assert [answer.status for answer in answers] == [200] * (PROOFS_AT_ONCE + 1)
    assert begun == PROOFS_AT_ONCE + 1


async def _hang_up_while_waiting(doors: Doors, path: str, times: int) -> None:
    """Each asks over a connection of its own, and is gone (RST) when this returns."""
    address = urlsplit(doors.url)
    asked = f"GET {path} HTTP/1.1\r\nHost: {address.netloc}\r\n\r\n".encode()
    writers = [(await asyncio.open_connection(address.hostname, address.port))[1] for _ in range(times)]
    for writer in writers:
        writer.write(asked)
        await writer.drain()
        reset_on_close = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset_on_close)
    # What is asked later is answered later: when this is answered, those have been read.
    assert (await ask(doors.url, "GET", "/healthz")).status == 200
    for writer in writers:
        writer.transport.abort()
    assert (await ask(doors.url, "GET", "/healthz")).status == 200
