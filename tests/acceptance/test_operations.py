"""An operation as its users live it: real processes, a real broker, an external service that is one of its own."""

import asyncio
import json
from base64 import b64encode
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from service.adapters.rabbit_intake import PREFETCH
from service.cli.operations import operations as operations_command
from service.model.failures import message_for
from tests.acceptance.brokers import broker_in, needs_rabbitmq_server
from tests.acceptance.client import assert_whole, client_of, frames
from tests.acceptance.pending import cut_down, name_of, pending
from tests.acceptance.readers import RawReader
from tests.acceptance.render import render
from tests.acceptance.waiting import empty_broker, messages_left, until
from tests.adapters.remote_service import Act, said
from tests.adapters.remote_service import Service as RemoteService
from tests.adapters.test_openai_model import call, calls
from tests.adapters.upstream import Done, Finish, Script, Upstream, answer
from tests.faults.bench import Member
from tests.faults.link import link_to
from tests.faults.wire import BlackHole, Hold, Refuse, Way
from tests.processes import free_port, http_to, serve

pytestmark = pytest.mark.asyncio(loop_scope="session")

DONE = {"scene": 1, "frames": 3}
AWAY_SECONDS = 20.0


async def test_a_service_completes_over_two_doors_and_the_user_hears_of_it_once(
    tmp_path: Path, store_settings: dict[str, str], amqp_url: str
) -> None:
    """Two completions, one outcome, and one follow-up behind the turn that runs then, read over two cuts."""
    port = free_port()
    await empty_broker(amqp_url)
    async with AsyncExitStack() as stack:
        tools = await stack.enter_async_context(render(tmp_path, "--amqp", amqp_url))
        settings = store_settings | {
            "TOOLS_FILE": str(tools),
            "AMQP_URL": amqp_url,
            "HTTP_PORT": str(port),
            "PUBLIC_URL": f"http://127.0.0.1:{port}",
        }
        service = await stack.enter_async_context(serve(tmp_path / "log", settings, ready="model"))
        client = await stack.enter_async_context(client_of(service))
        http = await stack.enter_async_context(http_to(service.url, 30))
        session = (await http.post("/sessions", json={})).json()["id"]

        async def post(text: str) -> str:
            answer = await http.post(f"/sessions/{session}/messages", json={"text": text})
            return str(answer.json()["task_id"])

        turn = await post('/tool render {"scene": 1, "seconds": 0.4}\n/say It is being rendered.')

        async def begun() -> Any:
            return (await http.get("/operations", params={"session": session})).json()["operations"]

        (operation,) = await until(begun, "the operation")
        await until(lambda: client.is_closed(turn), "the turn's end")
        live = await post("/count 30 rate=30")  # the user goes on
        follow_up = operation["task_id"]

        async def ended() -> Any:
            now = (await http.get(f"/operations/{operation['id']}")).json()
            return now if now["status"] != "pending" else None

        now = await until(ended, "the completion over the broker")
        assert (now["status"], now["outcome"]) == ("succeeded", {"result": DONE})
        again = await http.post(f"/operations/{operation['id']}/complete", json={"success": True, "result": DONE})
        assert (again.status_code, again.json()["duplicate"]) == (200, True)
        reader = RawReader(follow_up)
        for cut_after in (700, 900):
            await reader.read(service.url, cut_after)
        await reader.read_to_the_end(service.url)
        assert reader.cuts == 2
        log = await client.stored(follow_up)
        assert_whole(log)
        assert reader.log == frames(log)
        told = [event.chunk["data"] for event in log if event.type == "data-operation"]
        assert [each["status"] for each in told] == ["pending"] * (len(told) - 1) + ["succeeded"]
        assert told[-1].get("progress") in (None, 0.5)  # what says that it has ended may have been faster
        (output,) = [event.chunk["output"] for event in log if event.type == "tool-output-available"]
        assert output == DONE
        assert sum(event.type == "finish" for event in log) == 1
        task, other = (await http.get(f"/tasks/{follow_up}")).json(), (await http.get(f"/tasks/{live}")).json()
        assert (task["status"], other["status"]) == ("succeeded", "succeeded")
        assert task["started_at"] >= other["finished_at"]
        tasks = (await http.get(f"/sessions/{session}/tasks")).json()["tasks"]
        assert [each["id"] for each in tasks] == [turn, follow_up, live]
        deliveries = (await http.get(f"/operations/{operation['id']}")).json()["deliveries"]
        assert [(each["door"], each["disposition"]) for each in deliveries] == [
            ("amqp", "accepted"),
            ("http", "duplicate"),
        ]


# --- what goes wrong with a service ---


def failed(error_type: str, message: str | None = None, **details: Any) -> dict[str, Any]:
    """An outcome, as it is told everywhere; with its type's own sentence, unless the service has said one."""
    outcome = {"error_type": error_type, "message": message or message_for(error_type)}
    return outcome | ({"details": details} if details else {})


@dataclass(frozen=True)
class Cause:
    """What happens at the socket, and what it is called; None: nothing is known, so the operation is pending."""

    act: Act | str
    """Or the URL of nobody."""
    outcome: dict[str, Any] | None
    deadline_seconds: float = 3600

    @property
    def is_overdue(self) -> bool:
        """Nothing was known before its deadline."""
        return self.deadline_seconds < 3600


CAUSES = {
    "busy": Cause(said(b"", "429 Too Many Requests"), failed("rate_limit", status=429)),
    "away": Cause(said(b"", "503 Service Unavailable"), failed("service_unavailable", status=503)),
    "slow": Cause(said(b"", "408 Request Timeout"), failed("timeout", status=408)),
    "behind": Cause(said(b"", "504 Gateway Timeout"), failed("timeout", status=504)),
    "broken": Cause(said(b"", "500 Internal Server Error"), failed("http_error", status=500)),
    "junk": Cause(said(b"<html>It works</html>"), failed("invalid_response", status=200)),
    "no": Cause(
        said(b'{"success": false, "error_type": "patch_error", "error": "No such scene.", "details": {"scene": 3}}'),
        failed("patch_error", "No such scene.", scene=3),
    ),
    "mute": Cause(said(b'{"success": false}'), failed("unknown")),
    "closed": Cause("http://127.0.0.1:{port}/", failed("connection_error")),
    "nowhere": Cause("http://nobody.invalid/", failed("connection_error")),
    "cut": Cause(Act(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", "reset"), None),
    "silent": Cause(Act(then="hold"), None),
    "overdue": Cause(Act(then="hold"), failed("timeout"), deadline_seconds=1),
}
"""By the tool's name."""


async def test_pitfall_53_what_goes_wrong_with_a_service_is_called_the_same_everywhere(
    tmp_path: Path, store_settings: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the socket to the log, the API, the command and the model, for each of the causes."""
    monkeypatch.chdir(tmp_path)  # where the command finds no settings
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(Upstream())
        asking = [calls(*(call(n, name, name, "{}") for n, name in enumerate(CAUSES))), Finish("tool_calls"), Done()]
        upstream.play(Script(tuple(asking)), answer("Well."), answer("Well, well."))
        file = tmp_path / "tools.json"
        file.write_text(json.dumps([await _tool(stack, name, cause) for name, cause in CAUSES.items()]))
        settings = store_settings | {"TOOLS_FILE": str(file), "MODEL_URL": upstream.url, "MODEL": "m"}
        service = await stack.enter_async_context(serve(tmp_path / "log", settings, ready="model"))
        http = await stack.enter_async_context(http_to(service.url, 30))
        client = await stack.enter_async_context(client_of(service))
        session = (await http.post("/sessions", json={})).json()["id"]
        turn = (await http.post(f"/sessions/{session}/messages", json={"text": "Hi"})).json()["task_id"]
        await until(lambda: client.is_closed(turn), "the turn's end")
        listed = (await http.get("/operations", params={"session": session})).json()["operations"]
        operations = {each["tool"]: each for each in listed}
        for name in (name for name, cause in CAUSES.items() if cause.outcome is not None):
            await until(partial(client.is_closed, operations[name]["task_id"]), f"the end of {name}")

        of_turn = {
            event.chunk["toolCallId"]: event.chunk.get("errorText") or event.chunk["output"]
            for event in await client.stored(turn)
            if event.type in ("tool-output-error", "tool-output-available")
        }
        _, in_turn, in_follow_up = (request.body["messages"] for request in upstream.requests)
        told = {each["tool_call_id"]: each["content"] for each in in_turn if each["role"] == "tool"}
        assert set(of_turn) == set(told) == set(operations) == set(CAUSES)
        command = await _lines(service.url, "list", "--session", session)
        in_command = {line.split("\t")[2]: (line.split("\t")[1], line.split("\t")[9]) for line in command}
        for name, cause in CAUSES.items():
            operation = (await http.get(f"/operations/{operations[name]['id']}")).json()
            outcome, status = cause.outcome, "pending" if cause.outcome is None else "failed"
            error_type = None if outcome is None else outcome["error_type"]
            assert (operation["status"], operation["error_type"], operation["outcome"]) == (status, error_type, outcome)
            assert in_command[name] == (status, error_type or "")
            shown = [line for line in await _lines(service.url, "show", operation["id"]) if line.startswith("outcome ")]
            assert [json.loads(line.removeprefix("outcome ")) for line in shown] == ([outcome] if outcome else [])
            log = await client.stored(operation["task_id"])
            data = [event.chunk["data"] for event in log if event.type == "data-operation"][-1]
            assert (data["status"], data.get("outcome")) == (status, outcome)
            if outcome is None or cause.is_overdue:
                assert of_turn[name] == json.loads(told[name])
                started = {"status": "started", "operation_id": operation["id"], "task_id": operation["task_id"]}
                assert of_turn[name] == started
            else:
                words, *details = of_turn[name].split("\n")
                assert words == f"[code:{error_type}] {outcome['message']}"
                assert [json.loads(each) for each in details] == ([outcome["details"]] if "details" in outcome else [])
                assert told[name] == of_turn[name]
        (said_of_it,) = [each["content"] for each in in_follow_up if "`overdue`" in str(each["content"])]
        assert f"[code:timeout] {message_for('timeout')}" in said_of_it


async def _tool(stack: AsyncExitStack, name: str, cause: Cause) -> dict[str, Any]:
    """How Playhead is told of it; its service is there until the stack is left."""
    if isinstance(cause.act, str):
        url = cause.act.format(port=free_port())
    else:
        url = (await stack.enter_async_context(RemoteService(cause.act))).url
    return {
        "name": name,
        "description": "Fails.",
        "schema": {"type": "object"},
        "url": url,
        "secret": f"whsec_{b64encode(name.encode().ljust(32)).decode()}",
        "deadline_seconds": cause.deadline_seconds,
        "call_seconds": 1 if isinstance(cause.act, Act) and cause.act.then == "hold" else 10,
    }


async def _lines(url: str, *arguments: str) -> list[str]:
    """What `playhead operations` prints into a pipe."""
    ran = await asyncio.to_thread(CliRunner().invoke, operations_command, [*arguments, "--url", url])
    assert ran.exit_code == 0, ran
    return ran.stdout.splitlines()


# --- whatever goes wrong ---


async def is_away(members: Sequence[Member]) -> None:
    """Their database answers nobody, then it refuses everybody. This is the outage itself, not a wait for something."""
    for fault in (BlackHole(), Refuse()):
        for member in members:
            member.postgres.break_by(fault)
        await asyncio.sleep(AWAY_SECONDS / 2)


@pytest.mark.timeout(180)
async def test_completions_through_kills_and_an_outage_are_each_one_outcome_and_one_follow_up(
    tmp_path: Path, store_settings: dict[str, str], amqp_url: str
) -> None:
    """Each comes twice, and every other one over the other door too; most of them while the database is away.

    Before that the consumer is killed (-9) in front of a commit and behind one, and the worker amid follow-ups.
    """
    await empty_broker(amqp_url)
    async with pending(500, store_settings, tmp_path) as work:
        consumer, door = await asyncio.gather(work.member("completions", AMQP_URL=amqp_url), work.member("http"))
        received, stored, *others = work.operations
        before, meanwhile, behind = others[:150], others[150:400], others[400:]

        consumer.postgres.break_by(Hold(name_of(received).encode(), Way.UP))
        await work.publish(amqp_url, [received], times=1)
        await consumer.postgres.held.wait()
        await cut_down(consumer)
        assert await work.status(received) == "pending"
        await consumer.start()

        consumer.postgres.break_by(Hold(name_of(stored).encode(), Way.DOWN))
        await work.publish(amqp_url, [stored], times=1)
        await until(lambda: work.reaches(ended=2), "the commit")
        await cut_down(consumer)
        assert (await work.deliveries(received), await work.deliveries(stored)) == (1, 1)
        await consumer.start()

        await asyncio.gather(work.publish(amqp_url, before), work.call_back(door, before[::2]))
        await until(lambda: work.reaches(ended=2 + len(before)), "outcomes")
        worker = await work.member("tasks")
        await until(lambda: work.reaches(closed=20), "some follow-ups")
        await cut_down(worker)
        assert (await work.how_far()).running > 0
        await worker.start()

        async with asyncio.TaskGroup() as services:
            outage = services.create_task(is_away(work.members))
            calling = services.create_task(work.call_back(door, meanwhile[::2]))
            await work.publish(amqp_url, meanwhile)
            await outage
            assert (await messages_left(amqp_url))[0] >= 2 * len(meanwhile) - PREFETCH
            for member in work.members:
                member.postgres.heal()
            services.create_task(work.call_back(door, behind[::2]))
            await work.publish(amqp_url, behind)
        assert calling.result() > 0
        await work.assert_each_once(amqp_url)
        assert await work.deliveries(stored) == 2


@needs_rabbitmq_server
@pytest.mark.timeout(180)
async def test_completions_through_the_death_of_the_broker_are_each_one_outcome_and_one_follow_up(
    tmp_path: Path, store_settings: dict[str, str]
) -> None:
    """It is killed (-9) with some that wait, some that are being taken, and some that it has and has not confirmed."""
    async with pending(100, store_settings, tmp_path) as work, broker_in(tmp_path / "broker") as broker:
        await broker.start()
        consumer, _ = await asyncio.gather(work.member("completions", AMQP_URL=broker.url), work.member("tasks"))
        publisher = await work.stack.enter_async_context(link_to(("127.0.0.1", broker.port)))
        confirmed, unconfirmed = work.operations[:60], work.operations[60:]
        waiting = 2 * len(work.operations) - PREFETCH

        async def has_them() -> bool:
            return (await messages_left(broker.url))[0] == waiting

        consumer.postgres.break_by(BlackHole())
        await work.publish(broker.url, confirmed)
        async with asyncio.TaskGroup() as services:
            publisher.break_by(Hold(name_of(unconfirmed[0]).encode(), Way.DOWN))
            publishing = services.create_task(work.publish(broker.url_by(publisher.port), unconfirmed))
            await until(has_them, "what is not in hand waits")
            await broker.kill()
            publisher.cut()
            publisher.heal()
            consumer.postgres.heal()  # what was being taken is stored, and nobody is left to acknowledge it to
            await broker.start()
        assert publishing.result() >= 2 * len(unconfirmed)
        await work.assert_each_once(broker.url)
