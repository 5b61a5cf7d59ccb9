"""Background jobs in real processes: a worker is killed amid one, and another one says so."""

import os
import signal
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.client import Client, assert_whole, client_of
from tests.acceptance.waiting import until
from tests.adapters.embedded.foreign import eventually, is_running, needs_linux, parent_of
from tests.processes import Service, http_to, serve

pytestmark = [needs_linux, pytest.mark.asyncio(loop_scope="session")]

STUBBORN = "(trap '' TERM; while :; do sleep 0.05; done) & echo $$ $! > new; mv new pids; echo working; wait"
"""Runs until it is killed, and has a child that ignores a stop; tells their ids in a file."""


async def start_job(client: Client, service: Service, command: str) -> tuple[str, str]:
    """A turn begins a job; answers its session and the job's task."""
    async with http_to(service.url, 20) as http:
        session = (await http.post("/sessions")).raise_for_status().json()["id"]
        text = f'/tool start_job {{"command": "{command}"}}\n/say Asked for.'
        posted = await http.post(f"/sessions/{session}/messages", json={"text": text})
        turn = posted.raise_for_status().json()["task_id"]
        await until(lambda: client.is_closed(turn), "the turn's end")
    (started,) = [each.chunk for each in await client.stored(turn) if each.type == "tool-output-available"]
    return session, started["output"]["task_id"]


async def ended(client: Client, task_id: str) -> list[dict[str, Any]]:
    """The whole log, when it is closed."""
    await until(lambda: client.is_closed(task_id), "the end")
    log = await client.stored(task_id)
    assert_whole(log)
    return [each.chunk for each in log]


def outcome(log: list[dict[str, Any]]) -> Any:
    return [each["data"] for each in log if each["type"] == "data-operation"][-1]["outcome"]


async def pids_of(workspace: Path, session: str) -> list[int]:
    """The command, its child and its warden, when they run."""
    file = workspace / session / "pids"
    await eventually(file.exists, "the command runs")
    main, child = map(int, file.read_text().split())
    return [main, child, parent_of(main)]


async def test_a_job_whose_worker_is_killed_is_followed_up_and_leaves_no_process(
    tmp_path: Path, store_settings: dict[str, str]
) -> None:
    workspace = tmp_path / "work"
    settings = store_settings | {"WORKSPACE_DIR": str(workspace), "LEASE_SECONDS": "2"}
    async with AsyncExitStack() as stack:
        door = await stack.enter_async_context(serve(tmp_path / "http.log", store_settings, "--only", "http"))
        workers = [
            await stack.enter_async_context(
                serve(tmp_path / f"worker-{n}.log", settings, "--only", "tasks", ready="model")
            )
            for n in range(2)
        ]
        client = await stack.enter_async_context(client_of(door))
        session, task_id = await start_job(client, door, STUBBORN)
        pids = await pids_of(workspace, session)
        holder = parent_of(pids[-1])
        assert holder in [worker.process.pid for worker in workers]
        os.kill(holder, signal.SIGKILL)
        log = await ended(client, task_id)
        assert outcome(log)["error_type"] == "died"
        assert log[-1]["messageMetadata"]["status"] == "succeeded"  # the follow-up's
        assert [pid for pid in pids if is_running(pid)] == []


async def test_a_job_ends_with_a_worker_that_is_told_to_stop_and_one_that_succeeds_is_told(
    tmp_path: Path, store_settings: dict[str, str]
) -> None:
    workspace = tmp_path / "work"
    settings = store_settings | {"WORKSPACE_DIR": str(workspace), "LEASE_SECONDS": "2"}
    async with AsyncExitStack() as stack:
        door = await stack.enter_async_context(serve(tmp_path / "http.log", store_settings, "--only", "http"))
        client = await stack.enter_async_context(client_of(door))
        worker = await stack.enter_async_context(
            serve(tmp_path / "worker.log", settings, "--only", "tasks", ready="model")
        )
        _, done = await start_job(client, door, "echo built")
        assert outcome(await ended(client, done)) == {"exit_code": 0, "output": "built\n"}
        session, task_id = await start_job(client, door, STUBBORN)
        pids = await pids_of(workspace, session)
        assert await worker.stop() == 0
        assert [pid for pid in pids if is_running(pid)] == []
        assert "turns_aborted" not in worker.log.read_text()
        await stack.enter_async_context(serve(tmp_path / "next.log", settings, "--only", "tasks", ready="model"))
        assert outcome(await ended(client, task_id))["error_type"] == "died"
