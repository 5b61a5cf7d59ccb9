"""The page reads a log as the service does: its fold is the same after every event."""

import copy
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from service.model import events as e
from service.model.encoding import encode
from service.model.fold import BrokenLog, LogFold
from service.model.ids import Epoch, MessageId, PartId
from tests.model.test_fold import CALL, FAILED, START, finish
from tests.node import NO_NODE, node

LOGS = 25
EVENTS = 60
OUTPUTS: tuple[Any, ...] = ("ok", None, {"frames": 3}, [], 0, False)
NOT_SHOWN = {"providerExecuted", "truncated", "inputText"}


def candidates(dice: random.Random) -> list[e.Chunk]:
    """Events that might come next; whether one can stand there, the service's fold says."""
    part, call, asked = PartId(f"p{dice.randrange(3)}"), f"c{dice.randrange(4)}", f"o{dice.randrange(3)}"
    operation = e.OperationData(dice.choice(["pending", "succeeded", "failed"]), "render", None, dice.random())
    return [
        *(e.StartStep(), e.FinishStep(), e.ResetStep(), CALL, e.DataAttempt(e.AttemptData(Epoch(dice.randrange(9))))),
        *(e.TextStart(part), e.TextDelta(part, dice.choice("äb ")), e.TextDelta(part, "x"), e.TextEnd(part)),
        *(e.ReasoningStart(part), e.ReasoningDelta(part, "r"), e.ReasoningEnd(part)),
        *(
            e.ToolInputStart(call, "render"),
            e.ToolInputDelta(call, "{"),
            e.ToolInputAvailable(call, "render", {"a": 1}),
        ),
        *(e.ToolInputError(call, "render", None, "no"), e.ToolOutputError(call, "oh"), e.ToolOutputDenied(call)),
        e.ToolOutputAvailable(call, dice.choice(OUTPUTS), dice.choice([True, None])),
        e.ToolApprovalRequest(asked, call),
        e.ToolApprovalResponse(asked, dice.random() < 0.5, dice.choice(["why", None])),
        e.DataOperation(asked, operation),
        e.SteeringMessage(MessageId("u2"), (e.TextPart("And?"),)),
        e.DataRetry(e.RetryData(2, 1.5, "timeout")),
    ]


def random_log(dice: random.Random) -> Iterator[tuple[e.Chunk, LogFold]]:
    """A log, and the service's fold after each of its events."""
    fold = LogFold()
    for chunk in [START, *(dice.choice(candidates(dice)) for _ in range(EVENTS * 4)), FAILED, finish()]:
        tried = copy.deepcopy(fold)
        try:
            tried.apply(chunk)
        except BrokenLog:
            continue
        fold = tried
        yield chunk, fold


def shown(part: dict[str, Any]) -> dict[str, Any]:
    """A part without what only one of the two needs."""
    kept = {name: value for name, value in part.items() if name not in NOT_SHOWN}
    if part["type"] in ("text", "reasoning"):
        kept.pop("id", None)
    if not kept.get("preliminary"):
        kept.pop("preliminary", None)
    return kept


def test_the_page_folds_a_log_as_the_service_does() -> None:
    binary = node()
    if binary is None:
        pytest.skip(f"{NO_NODE}: the page's fold is not held against the service's")
    dice = random.Random(6)
    logs = [list(random_log(dice)) for _ in range(LOGS)]
    lines = b"\n".join(orjson.dumps([orjson.loads(encode(chunk)) for chunk, _ in log]) for log in logs)
    command = [binary, "--disable-warning=MODULE_TYPELESS_PACKAGE_JSON", Path(__file__).with_name("fold_all.mjs")]
    ran = subprocess.run(command, input=lines, capture_output=True, check=True)
    assert sum(len(log) for log in logs) > LOGS * EVENTS / 2
    seen: set[str] = set()
    for log, line in zip(logs, ran.stdout.splitlines(), strict=True):
        for (chunk, fold), state in zip(log, orjson.loads(line), strict=True):
            seen.add(chunk.type)
            page = [shown(part) for part in state["parts"] if part.get("text") != ""]
            assert page == orjson.loads(orjson.dumps([shown(part) for part in fold.message_parts()])), chunk
            assert (state["status"], state["attempts"]) == (fold.status, fold.attempts)
            usage = {"inputTokens": fold.usage.input_tokens, "outputTokens": fold.usage.output_tokens}
            assert state["usage"] == usage
    assert seen >= {each.type for each in candidates(dice)}
