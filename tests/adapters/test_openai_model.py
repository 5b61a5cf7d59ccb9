"""The OpenAI adapter, against a real server that speaks the wire format and breaks it in all ways."""

import asyncio
import json
import logging
import socket
import traceback
import tracemalloc
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing

import pytest
import pytest_asyncio

from service.adapters.openai_model import OpenAIModel
from service.adapters.openai_stream import MAX_EVENT_BYTES, MAX_PIECE_CHARACTERS
from service.agent.ports import Model
from service.model.events import FilePart, TextPart, Usage
from service.model.failures import ModelCallFailed
from service.model.generation import (
    CallEnded,
    Piece,
    Prompt,
    ReasoningPiece,
    TextPiece,
    ToolCallPiece,
    ToolDescription,
    ToolUse,
    Utterance,
)
from service.model.ids import TaskId
from tests.adapters.upstream import (
    SECRET,
    Cut,
    Delta,
    Done,
    Fault,
    Finish,
    Pause,
    Raw,
    Reasoning,
    Script,
    Silence,
    Step,
    Tokens,
    Upstream,
    answer,
    refusal,
)

TASK = TaskId("01890000-0000-7000-8000-000000000000")
KEY = "sk-the-key"
IDLE_SECONDS = 0.2
ROLE = Raw(b'data: {"choices": [{"index": 0, "delta": {"role": "assistant"}, "finish_reason": null}]}\n\n')


def user(text: str) -> Utterance:
    return Utterance("user", (TextPart(text),))


pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),  # to open a client takes 20 ms: certificates
    pytest.mark.alone,  # what comes in time has a tenth of a second
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[Upstream]:
    async with Upstream() as opened:
        yield opened


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def model(server: Upstream) -> AsyncIterator[OpenAIModel]:
    async with OpenAIModel(server.url, KEY, "gpt-test", connect_seconds=1, idle_seconds=IDLE_SECONDS) as opened:
        yield opened


@pytest.fixture
def upstream(server: Upstream) -> Upstream:
    server.forget()
    return server


async def ask(model: Model, *conversation: Utterance) -> list[Piece]:
    async with aclosing(model.stream(TASK, Prompt(conversation or (user("Hi"),)))) as pieces:
        return [piece async for piece in pieces]


async def fail(model: Model, text: str = "Hi") -> tuple[ModelCallFailed, str]:
    """How the call fails, and the text that came before."""
    said = ""
    try:
        async with aclosing(model.stream(TASK, Prompt((user(text),)))) as pieces:
            async for piece in pieces:
                assert isinstance(piece, TextPiece)
                said += piece.text
    except ModelCallFailed as failure:
        return failure, said
    pytest.fail(f"did not fail, but said {said!r}")


def text_of(pieces: Sequence[Piece]) -> str:
    return "".join(piece.text for piece in pieces if isinstance(piece, TextPiece))


# --- whole answers ----------------------------------------------------------------------------------------------------


async def test_each_delta_is_a_piece_and_the_end_is_last(upstream: Upstream, model: OpenAIModel) -> None:
    upstream.play(answer("Hel", "", None, "lo", usage=(11, 2)))
    assert await ask(model) == [TextPiece("Hel"), TextPiece("lo"), CallEnded("stop", Usage(11, 2))]


async def test_a_delta_is_yielded_before_the_next_one_exists(upstream: Upstream, model: OpenAIModel) -> None:
    upstream.play(Script((Delta("first"), Silence())))
    async with aclosing(model.stream(TASK, Prompt((user("Hi"),)))) as pieces:
        assert await asyncio.wait_for(anext(pieces), IDLE_SECONDS / 2) == TextPiece("first")


@pytest.mark.parametrize("spelling", ["reasoning_content", "reasoning"])
async def test_reasoning_in_both_spellings(upstream: Upstream, model: OpenAIModel, spelling: str) -> None:
    upstream.play(Script((Reasoning("Hm", spelling), *answer("So").steps)))
    assert (await ask(model))[:2] == [ReasoningPiece("Hm"), TextPiece("So")]


async def test_reasoning_that_comes_in_both_spellings_at_once_is_said_once(
    upstream: Upstream, model: OpenAIModel
) -> None:
    both = Raw(b'data: {"choices": [{"delta": {"reasoning": "Hm", "reasoning_content": "Hm", "content": "So"}}]}\n\n')
    upstream.play(Script((both, *answer().steps)))
    assert (await ask(model))[:-1] == [ReasoningPiece("Hm"), TextPiece("So")]


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        ("stop", "stop"),
        ("length", "length"),
        ("content_filter", "content-filter"),
        ("tool_calls", "stop"),
        ("eos", "stop"),
        (["odd"], "stop"),
    ],
)
async def test_finish_reasons(upstream: Upstream, model: OpenAIModel, sent: object, told: str) -> None:
    upstream.play(answer("x", finish=sent, usage=(1, 2)))
    assert (await ask(model))[-1] == CallEnded(told, Usage(1, 2))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        (None, Usage(0, 0)),
        ({"prompt_tokens": 3, "completion_tokens": None}, Usage(3, 0)),
        ({"prompt_tokens": -1, "completion_tokens": "5"}, Usage(0, 0)),
        ({"prompt_tokens": True, "completion_tokens": 5.0}, Usage(0, 0)),
        ({"prompt_tokens": 10**30, "completion_tokens": 5}, Usage(0, 5)),
        ("much", Usage(0, 0)),
    ],
)
async def test_usage_that_is_missing_or_no_count_is_zero(
    upstream: Upstream, model: OpenAIModel, sent: object, told: Usage
) -> None:
    upstream.play(answer("x", usage=sent))
    assert (await ask(model))[-1] == CallEnded("stop", told)


def event(data: str) -> Raw:
    return Raw(f"data: {data}\n\n".encode())


BOM = b"\xef\xbb\xbf"

ENDS = {
    "no usage, no done": (answer("x", usage=None, done=False), "stop"),
    "done without a finish reason": (answer("x", finish=None), "stop"),
    "reset after the finish reason": (Script((Delta("x"), Finish("length"), Pause(0.02), Cut())), "length"),
    "silence after the finish reason": (Script((Delta("x"), Finish("length"), Silence())), "length"),
    "silence after done": (Script((Delta("x"), Done(), Silence())), "stop"),
    "rubbish after done": (Script((Delta("x"), Raw(b"data: [DONE]\n\n<rubbish>\n"))), "stop"),
    "no blank line after done": (Script((Delta("x"), Raw(b"data: [DONE]\n"))), "stop"),
    "comments, other fields, CRLF, cut anywhere": (
        Script(
            (
                Raw(b": hello\r\n\r\nevent: message\r\nid: 1\r\nretry: 5\r\nda"),
                Pause(0.01),
                Raw(b'ta:{"choices":\r\ndata: [{"delta": {"content": "x"}}]}\r\n\r\n\r\ndata:\r\n\r\n'),
                *answer().steps,
            )
        ),
        "stop",
    ),
    "a null delta": (Script((event('{"choices": [{"delta": null}], "error": null}'), *answer("x").steps)), "stop"),
    "no delta, as Azure's notes of a filter": (
        Script((event('{"choices": [{"index": 0, "content_filter_results": {}}]}'), *answer("x").steps)),
        "stop",
    ),
    "no delta at the end": (
        Script((Delta("x"), event('{"choices": [{"index": 0, "finish_reason": "length"}]}'), Done())),
        "length",
    ),
    "a reason that is empty until the end, as Ollama once had it": (
        Script((event('{"choices": [{"delta": {"content": "x"}, "finish_reason": ""}]}'), Finish("length"), Done())),
        "length",
    ),
    "objects that say nothing": (
        Script((event('{"type": "ping"}'), event('{"choices": null}'), *answer("x").steps)),
        "stop",
    ),
    "fields that there are not": (Script((Raw(b"foo: bar\nx-y\n\n"), *answer("x").steps)), "stop"),
    "a byte order mark": (Script((Raw(BOM + b'data: {"choices": []}\n\n'), *answer("x").steps)), "stop"),
    "a byte order mark, cut": (
        Script((Raw(BOM[:1]), Pause(0.01), Raw(BOM[1:] + b": hello\n"), *answer("x").steps)),
        "stop",
    ),
}


@pytest.mark.parametrize("name", ENDS)
async def test_ends_that_are_tolerated(upstream: Upstream, model: OpenAIModel, name: str) -> None:
    script, reason = ENDS[name]
    upstream.play(script)
    *said, end = await ask(model)
    assert said == [TextPiece("x")]
    assert isinstance(end, CallEnded)
    assert end.reason == reason


RESTS: dict[str, tuple[Step, ...]] = {
    "usage with choices": (Tokens({"prompt_tokens": 7, "completion_tokens": 5}), Done()),
    "usage without choices": (event('{"usage": {"prompt_tokens": 7, "completion_tokens": 5}}'), Done()),
    "usage with null for choices": (
        event('{"choices": null, "usage": {"prompt_tokens": 7, "completion_tokens": 5}}'),
        Done(),
    ),
    "usage with choices of another type": (
        event('{"choices": "none", "usage": {"prompt_tokens": 7, "completion_tokens": 5}}'),
        Done(),
    ),
    "not JSON, then usage": (event('{"choices": oops'), *answer(finish=None).steps),
    "not an event, then usage": (Raw(b"oops\n\n"), *answer(finish=None).steps),
    "an error, then usage": (Fault({"code": 500, "message": SECRET}), *answer(finish=None).steps),
    "an error by its field, then usage": (Raw(b'error: {"code": 500}\n\n'), *answer(finish=None).steps),
    "usage beside an error": (
        event('{"error": {"code": 500}, "usage": {"prompt_tokens": 7, "completion_tokens": 5}}'),
    ),
    "another, worse reason, then usage": (Finish("error"), *answer(finish=None).steps),
    "a delta of another type, then usage": (Delta({"a": 1}), *answer(finish=None).steps),
    "usage, then a list": (*answer(finish=None, done=False).steps, event("[1]"), Done()),
    "usage, then a line without an end": (
        *answer(finish=None, done=False).steps,
        *[Raw(b"x" * 2**20)] * 8,
        Silence(),
    ),
    "usage, then a reset": (*answer(finish=None, done=False).steps, Pause(0.02), Cut()),
}


@pytest.mark.parametrize("name", RESTS)
async def test_once_the_model_said_why_it_stopped_only_usage_counts(
    upstream: Upstream, model: OpenAIModel, name: str
) -> None:
    upstream.play(Script((Delta("x"), Finish("length"), *RESTS[name])))
    assert await ask(model) == [TextPiece("x"), CallEnded("length", Usage(7, 5))]


async def test_a_refusal_is_text_and_no_ordinary_stop(upstream: Upstream, model: OpenAIModel) -> None:
    refused = [
        Raw(b'data: {"choices": [{"delta": {"refusal": "%b", "content": null}}]}\n\n' % b) for b in (b"I ", b"can't.")
    ]
    upstream.play(Script((*refused, *answer().steps)), Script((*refused, *answer(finish="length").steps)))
    said = [TextPiece("I "), TextPiece("can't.")]
    assert await ask(model) == [*said, CallEnded("content-filter", Usage(7, 5))]
    assert await ask(model) == [*said, CallEnded("length", Usage(7, 5))]


async def test_what_goes_on_after_done_is_not_waited_for(upstream: Upstream, model: OpenAIModel) -> None:
    upstream.play(Script((Delta("x"), Done(), Pause(IDLE_SECONDS / 4), Raw(b": more\n\n")), repeat=True))
    async with asyncio.timeout(IDLE_SECONDS):
        assert text_of(await ask(model)) == "x"


async def test_the_connection_is_used_again(upstream: Upstream, model: OpenAIModel) -> None:
    for _ in range(3):
        await ask(model)
    assert len({request.peer for request in upstream.requests}) == 1


# --- tools ------------------------------------------------------------------------------------------------------------


def calls(*deltas: object) -> Raw:
    """An event with deltas of tool calls."""
    choice = {"index": 0, "delta": {"tool_calls": list(deltas)}, "finish_reason": None}
    return Raw(f"data: {json.dumps({'choices': [choice]})}\n\n".encode())


def call(index: object, call_id: object, name: object, arguments: object) -> dict[str, object]:
    function = {"name": name, "arguments": arguments}
    return {"index": index, "id": call_id, "type": "function", "function": function}


def arguments(text: str, index: int = 0) -> dict[str, object]:
    return {"index": index, "function": {"arguments": text}}


A, B = ("a", "one", '{"x": 1}'), ("b", "two", "{}")

ASKED_FOR: dict[str, tuple[list[Raw], list[tuple[str, str, str]]]] = {
    "piece by piece": (
        [
            calls(call(0, "a", "one", "")),
            calls(arguments('{"x"')),
            calls(arguments(": 1}")),
            calls(call(1, "b", "two", "{}")),
        ],
        [A, B],
    ),
    "mixed": (
        [calls(call(0, "a", "one", '{"x"'), call(1, "b", "two", "{")), calls(arguments("}", 1), arguments(": 1}"))],
        [A, B],
    ),
    "each whole, all with one index": ([calls(call(0, *A)), calls(call(0, *B))], [A, B]),
    "without indices": ([calls(call(None, *A), call(None, *B))], [A, B]),
    "id and name in every delta": ([calls(call(0, "a", "one", '{"x"')), calls(call(0, "a", "one", ": 1}"))], [A]),
    "without ids": (
        [calls(call(0, None, "one", '{"x": 1}'), call(1, "", "two", "{}"))],
        [("call_0", *A[1:]), ("call_1", *B[1:])],
    ),
    "without ids and indices, each whole": (
        [calls(call(None, None, "one", '{"x": 1}'), call(None, "", "one", "{}"), call(None, None, "two", "{}"))],
        [("call_0", *A[1:]), ("call_1", "one", "{}"), ("call_2", *B[1:])],
    ),
    "without ids, each whole, all with one index": (
        [calls(call(0, None, "one", '{"x": 1}')), calls(call(0, None, "two", {}))],
        [("call_0", *A[1:]), ("call_1", *B[1:])],
    ),
    "without ids, the name in every delta": (
        [calls(call(0, None, "one", '{"x"')), calls(call(0, None, "one", ": 1}"))],
        [("call_0", *A[1:])],
    ),
    "one id for all": ([calls(call(0, *A), call(1, *A))], [A, ("a_1", *A[1:])]),
    "arguments as an object": ([calls(call(0, "a", "one", {"x": 1}))], [A]),
    "without arguments": ([calls(call(0, "a", "one", None))], [("a", "one", "")]),
}


@pytest.mark.parametrize("finish", ["tool_calls", "stop"])
@pytest.mark.parametrize(("sent", "asked"), ASKED_FOR.values(), ids=ASKED_FOR.keys())
async def test_tools_are_asked_for(
    upstream: Upstream, model: OpenAIModel, sent: list[Raw], asked: list[tuple[str, str, str]], finish: str
) -> None:
    upstream.play(Script((Delta("So:"), *sent, *answer(finish=finish, usage=(1, 2)).steps)))
    first, *pieces, last = await ask(model)
    assert (first, last) == (TextPiece("So:"), CallEnded("tool-calls", Usage(1, 2)))
    heard: dict[tuple[str, str], str] = {}
    for piece in pieces:
        assert isinstance(piece, ToolCallPiece)
        heard[piece.call_id, piece.name] = heard.get((piece.call_id, piece.name), "") + piece.arguments
    assert [(*named, text) for named, text in heard.items()] == asked


@pytest.mark.parametrize(
    "sent",
    [
        arguments("{}"),
        call(0, "a", "", "{}"),
        call(0, "a", ["one"], "{}"),
        call([0], *A),
        call(0, "a", "one", 1),
        {},
        "a",
    ],
)
async def test_what_is_no_tool_call_is_an_invalid_response(
    upstream: Upstream, model: OpenAIModel, sent: object
) -> None:
    upstream.play(Script((Delta("So"), calls(sent), *answer().steps)))
    assert (await fail(model))[0].error_type == "invalid_response"


async def test_long_arguments_come_in_pieces(upstream: Upstream, model: OpenAIModel) -> None:
    text = json.dumps({"x": "\ud83d" + "y" * 3 * MAX_PIECE_CHARACTERS}, ensure_ascii=False)
    upstream.play(Script((calls(call(0, "a", "one", text)), *answer().steps)))
    pieces = [piece.arguments for piece in await ask(model) if isinstance(piece, ToolCallPiece)]
    assert "".join(pieces) == text.replace("\ud83d", "\ufffd")
    assert max(map(len, pieces)) == MAX_PIECE_CHARACTERS


async def test_tools_and_their_results_go_out_in_the_wire_format(upstream: Upstream, model: OpenAIModel) -> None:
    uses = (
        ToolUse("a", "one", {"x": 1}, {"y": [None]}),
        ToolUse("b", "two", "no object", "[code:invalid_arguments] No."),
    )
    turn = (
        user("Hi"),
        Utterance("assistant", (TextPart("So:"), *uses)),
        Utterance("assistant", uses[1:]),
        user("And?"),
    )
    described = ToolDescription("one", "The first.", {"type": "object"})
    prompt = Prompt(turn, (user("Before"),), system="Be brief.", model="other", tools=(described,))
    async with aclosing(model.stream(TASK, prompt)) as pieces:
        assert [piece async for piece in pieces]
    one, two = [
        {"id": use.call_id, "type": "function", "function": {"name": use.name, "arguments": sent}}
        for use, sent in zip(uses, ('{"x": 1}', "{}"), strict=True)
    ]
    refused = {"role": "tool", "tool_call_id": "b", "content": "[code:invalid_arguments] No."}
    body = upstream.requests[0].body
    assert body["model"] == "other"
    assert body["tools"] == [
        {"type": "function", "function": {"name": "one", "description": "The first.", "parameters": {"type": "object"}}}
    ]
    assert body["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Before"},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "So:", "tool_calls": [one, two]},
        {"role": "tool", "tool_call_id": "a", "content": '{"y": [null]}'},
        refused,
        {"role": "assistant", "content": None, "tool_calls": [two]},
        refused,
        {"role": "user", "content": "And?"},
    ]


# --- what is sent -----------------------------------------------------------------------------------------------------


async def test_the_conversation_goes_out_in_the_wire_format(upstream: Upstream, model: OpenAIModel) -> None:
    picture = FilePart("image/png", "data:image/png;base64,AAAA")
    await ask(
        model,
        user("Hi"),
        Utterance("assistant", (TextPart("Hel"), TextPart("lo"))),
        Utterance("assistant", ()),
        Utterance("user", (TextPart("What is this?"), picture)),
        user("half \ud83d pair"),
    )
    assert upstream.requests[0].body == {
        "model": "gpt-test",
        "stream": True,
        "stream_options": {"include_usage": True},
        "messages": [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Hel\nlo"},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is this?"},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
                ],
            },
            {"role": "user", "content": "half \ufffd pair"},
        ],
    }


@pytest.mark.parametrize(("key", "sent"), [(KEY, f"Bearer {KEY}"), ("", "Bearer no-key")])
async def test_nothing_of_the_environment_reaches_the_endpoint(
    upstream: Upstream, monkeypatch: pytest.MonkeyPatch, key: str, sent: str
) -> None:
    for name in ("API_KEY", "ADMIN_KEY", "ORG_ID", "PROJECT_ID", "WEBHOOK_SECRET"):
        monkeypatch.setenv(f"OPENAI_{name}", "leak")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/leak")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "Authorization: Bearer leak\nX-Leak: leak\nHost: leak")
    async with OpenAIModel(upstream.url, key, "m") as model:
        assert isinstance((await ask(model))[-1], CallEnded)
        client = model._client
        held = (client.api_key, client.admin_api_key, client.organization, client.project, client.webhook_secret)
        assert "leak" not in held
    headers = upstream.requests[0].headers
    assert "leak" not in repr(headers).lower()
    assert headers["Authorization"] == sent
    assert headers["Host"] == upstream.url.split("/")[2]


@pytest.mark.parametrize("key", ["new\nline", "dash\u2013", "nul\0"])
async def test_a_key_that_no_header_can_carry_is_refused_without_telling_it(key: str) -> None:
    with pytest.raises(ValueError, match="printable ASCII") as refused:
        OpenAIModel("http://127.0.0.1/v1", key, "m")
    assert key not in str(refused.value)


async def test_cookies_are_not_kept(upstream: Upstream, model: OpenAIModel) -> None:
    headers = {"Content-Type": "text/event-stream", "Set-Cookie": "user=1; Path=/"}
    upstream.play(Script(answer("x").steps, headers=headers))
    await ask(model)
    await ask(model)
    assert "Cookie" not in upstream.requests[1].headers
    assert len(model._client._client.cookies) == 0


# --- failures ---------------------------------------------------------------------------------------------------------

STATUSES = {
    400: "http_error",
    401: "authentication_error",
    403: "authentication_error",
    404: "http_error",
    408: "timeout",
    429: "rate_limit",
    500: "http_error",
    502: "http_error",
    503: "service_unavailable",
    504: "timeout",
}


@pytest.mark.parametrize("html", [False, True])
async def test_pitfall_53_statuses(
    upstream: Upstream, model: OpenAIModel, html: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        for status, error_type in STATUSES.items():
            upstream.play(refusal(status, html=html))
            failure, _ = await fail(model)
            assert (status, failure.error_type) == (status, error_type)
            told = "".join(traceback.format_exception(failure)) + caplog.text
            for secret in (SECRET, KEY, upstream.url):
                assert secret not in told
    assert len(upstream.requests) == len(STATUSES)  # one try each


async def test_redirects_are_not_followed(upstream: Upstream, model: OpenAIModel) -> None:
    upstream.play(Script((), 307, {"Location": f"{upstream.url}/chat/completions"}))
    assert (await fail(model))[0].error_type == "http_error"
    assert len(upstream.requests) == 1


BROKEN: dict[str, tuple[Script, str]] = {
    "reset": (Script((Delta("so far"), Pause(0.03), Cut())), "request_error"),
    "closed amid the body": (Script((Delta("so far"), Cut(reset=False))), "request_error"),
    "ended without finish reason and done": (Script((Delta("so far"),)), "request_error"),
    "ended amid a line": (Script((Delta("so far"), Raw(b'data: {"choices": [{"del'))), "request_error"),
    "silence": (Script((Delta("so far"), Silence())), "timeout"),
    "a reset behind a reason that is empty": (
        Script((Delta("so far"), Finish(""), Pause(0.02), Cut())),
        "request_error",
    ),
    "not JSON": (Script((Delta("so far"), event('{"choices": oops'))), "invalid_response"),
    # A line that says nothing is skipped, as the standard wants it: what broke here is that the answer has no end.
    "not an event": (Script((Delta("so far"), Raw(b"oops\n"))), "request_error"),
    "no choices": (Script((Delta("so far"), event('{"id": "1"}'))), "request_error"),
    "choices of another type": (Script((Delta("so far"), event('{"choices": {"0": 1}}'))), "invalid_response"),
    "a choice of another type": (Script((Delta("so far"), event('{"choices": ["x"]}'))), "invalid_response"),
    "a delta of another type": (
        Script((Delta("so far"), event('{"choices": [{"delta": ["x"]}]}'))),
        "invalid_response",
    ),
    "a text of another type": (Script((Delta("so far"), Delta({"a": 1}))), "invalid_response"),
    "a list": (Script((Delta("so far"), event("[1]"))), "invalid_response"),
    "deep": (Script((Delta("so far"), event("[" * 200_000))), "invalid_response"),
    "a huge number": (Script((Delta("so far"), event("9" * 10_000))), "invalid_response"),
    "an error with a code": (Script((Delta("so far"), Fault({"code": 429, "message": SECRET}))), "rate_limit"),
    "a code in text": (Script((Delta("so far"), Fault({"code": "503"}))), "service_unavailable"),
    "a code's name": (Script((Delta("so far"), Fault({"code": "rate_limit_exceeded"}))), "rate_limit"),
    "a status": (Script((Delta("so far"), Fault({"code": None, "status": 401}))), "authentication_error"),
    "an error of another code": (Script((Delta("so far"), Fault({"code": 502}))), "http_error"),
    "an error that only speaks of time": (Script((Delta("so far"), Fault({"message": "timeout 429"}))), "http_error"),
    "an error that is a text": (Script((Delta("so far"), Fault("429"))), "http_error"),
    "an error without choices": (
        Script((Delta("so far"), event('{"error": {"message": "x", "type": "server_error", "code": "429"}}'), Done())),
        "rate_limit",
    ),
    "an error that is the chunk, as vLLM once had it": (
        Script((Delta("so far"), event('{"object": "error", "message": "x", "code": 503}'), Done())),
        "service_unavailable",
    ),
    "an error in a field of that name, as llama.cpp once had it": (
        Script((Delta("so far"), Raw(b'error: {"code": 429, "message": "x"}\n\n'), Done())),
        "rate_limit",
    ),
    "an error of a choice": (
        Script((Delta("so far"), event('{"choices": [{"delta": {}, "error": {"code": 503}}]}'), Done())),
        "service_unavailable",
    ),
    "an error and a reason at once, as OpenRouter has it": (
        Script(
            (
                Delta("so far"),
                event(
                    '{"error": {"code": 429, "message": "x"}, '
                    '"choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "error"}]}'
                ),
            )
        ),
        "rate_limit",
    ),
    "error as the reason": (Script((Delta("so far"), Finish("error"), Done())), "http_error"),
    "abort as the reason": (Script((Delta("so far"), Finish("abort"), Done())), "service_unavailable"),
    "no resources as the reason": (
        Script((Delta("so far"), Finish("insufficient_system_resource"), Done())),
        "service_unavailable",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
async def test_pitfall_53_streams_that_break(upstream: Upstream, model: OpenAIModel, name: str) -> None:
    script, error_type = BROKEN[name]
    upstream.play(script)
    failure, said = await fail(model)
    assert (failure.error_type, said) == (error_type, "so far")


NOTHING: dict[str, tuple[Script, str]] = {
    "no head": (Script((Silence(),)), "timeout"),
    "a head, no body": (Script((Raw(b": x\n"), Silence())), "timeout"),
    "reset before the head": (Script((Cut(),)), "request_error"),
    "closed before the head": (Script((Cut(reset=False),)), "request_error"),
    "an empty body": (Script(()), "request_error"),
    "ended amid the first event": (Script((Raw(b'data: {"choices": ['),)), "request_error"),
    "only comments": (Script((Raw(b": x\n\n: y\n\n"),)), "request_error"),
    "only done": (Script((ROLE, Done())), "invalid_response"),
    "only objects of another kind": (Script((event('{"type": "message_start"}'),)), "invalid_response"),
    "only objects of another kind, and done": (Script((event('{"type": "x"}'), Done())), "invalid_response"),
    "HTML with 200": (refusal(200, html=True), "invalid_response"),
    "one line of HTML with 200": (Script((Raw(b"<html>x</html>"),)), "invalid_response"),
    "JSON with 200": (refusal(200), "invalid_response"),
    "compressed": (Script((Raw(b"\x1f\x8b\x08\0\0\n\0"),), headers={"Content-Encoding": "gzip"}), "invalid_response"),
}


@pytest.mark.parametrize("name", NOTHING)
async def test_pitfall_53_answers_that_say_nothing(upstream: Upstream, model: OpenAIModel, name: str) -> None:
    script, error_type = NOTHING[name]
    upstream.play(script)
    failure, said = await fail(model)
    assert (failure.error_type, said) == (error_type, "")


async def test_pitfall_53_connections_that_do_not_come_about(upstream: Upstream) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    urls = {
        f"http://127.0.0.1:{port}/v1": "connection_error",
        "http://no-such-name.invalid/v1": "connection_error",
        upstream.url.replace("http:", "https:"): "connection_error",
        "gopher://127.0.0.1/v1": "connection_error",
    }
    found = {}
    for url in urls:
        async with OpenAIModel(url, KEY, "m", connect_seconds=2) as model:
            failure, _ = await fail(model)
            found[url] = failure.error_type
            assert "127.0.0.1" not in str(failure)
    assert found == urls


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_connecting_has_a_limit_of_its_own(scheme: str) -> None:
    """TCP: the queue of the listener is full. TLS: it has room, but nobody answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0 if scheme == "http" else 5)
        port = listener.getsockname()[1]
        others = [socket.socket() for _ in range(4 if scheme == "http" else 0)]
        for other in others:
            other.setblocking(False)
            other.connect_ex(("127.0.0.1", port))
        async with (
            asyncio.timeout(2),
            OpenAIModel(f"{scheme}://127.0.0.1:{port}/v1", KEY, "m", connect_seconds=0.1) as model,
        ):
            assert (await fail(model))[0].error_type == "timeout"
        for other in others:
            other.close()


async def test_comments_are_signs_of_life(upstream: Upstream, model: OpenAIModel) -> None:
    wait = (Pause(IDLE_SECONDS * 0.6), Raw(b": OPENROUTER PROCESSING\n\n")) * 3
    upstream.play(Script((*wait, *answer("late").steps)))
    assert text_of(await ask(model)) == "late"


# --- bounds -----------------------------------------------------------------------------------------------------------


async def test_surrogates_are_replaced(upstream: Upstream, model: OpenAIModel) -> None:
    upstream.play(answer("a\ud83db", "\udc00", "\ud83d\ude00"))
    assert text_of(await ask(model)) == "a\ufffdb\ufffd\U0001f600"


async def test_bytes_that_are_not_utf_8_are_replaced(upstream: Upstream, model: OpenAIModel) -> None:
    upstream.play(Script((Raw(b'data: {"choices": [{"delta": {"content": "a\xffb"}}]}\n\n'), *answer().steps)))
    assert text_of(await ask(model)) == "a\ufffdb"


async def test_a_long_delta_comes_in_pieces_that_fit_an_event(upstream: Upstream, model: OpenAIModel) -> None:
    long = "\U0001f600" * (MAX_PIECE_CHARACTERS + 1) + "\0" * 50_000
    upstream.play(answer(long), Script((Reasoning(long), *answer().steps)))
    for kind in (TextPiece, ReasoningPiece):
        texts = [piece.text for piece in await ask(model) if isinstance(piece, kind)]
        assert "".join(texts) == long
        assert max(len(text.encode()) for text in texts) <= 64 * 1024


ENDLESS = {
    "a line": (Script((Raw(b"data: "), *[Raw(b"x" * 2**20)] * 64)), "invalid_response"),
    "an event": (Script((Raw((b"data: " + b"x" * 1000 + b"\n") * 100),), repeat=True), "invalid_response"),
    "an event of empty lines": (Script((Raw(b"data:\n" * 1000),), repeat=True), "invalid_response"),
    "an error's body": (Script((Raw(b"x" * 2**20),), 500, {}, repeat=True), "http_error"),
}


@pytest.mark.parametrize("name", ENDLESS)
async def test_an_endless_answer_does_not_eat_memory(upstream: Upstream, model: OpenAIModel, name: str) -> None:
    script, error_type = ENDLESS[name]
    upstream.play(script)
    tracemalloc.start()
    try:
        failure, _ = await fail(model)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert failure.error_type == error_type
    assert peak < 6 * MAX_EVENT_BYTES
    await asyncio.wait_for(upstream.requests[0].gone.wait(), 1)


# --- leaving ----------------------------------------------------------------------------------------------------------


async def test_closing_early_closes_at_the_upstream(upstream: Upstream, model: OpenAIModel) -> None:
    upstream.play(Script((Delta("x"), Silence())))
    pieces = model.stream(TASK, Prompt((user("Hi"),)))
    await anext(pieces)
    await pieces.aclose()
    await asyncio.wait_for(upstream.requests[0].gone.wait(), IDLE_SECONDS / 2)


async def test_a_cancelled_reader_closes_at_the_upstream(upstream: Upstream, model: OpenAIModel) -> None:
    upstream.play(Script((Silence(),)))
    reader = asyncio.create_task(ask(model))
    await upstream.called.wait()
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    await asyncio.wait_for(upstream.requests[0].gone.wait(), IDLE_SECONDS / 2)


async def test_calls_run_side_by_side(upstream: Upstream, model: OpenAIModel) -> None:
    answers = await asyncio.gather(*(ask(model, user(f"say number {index}")) for index in range(50)))
    assert [text_of(pieces) for pieces in answers] == [f"number {index}" for index in range(50)]


# --- the upstream itself ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "outcome"),
    [
        ("say hello world", "hello world"),
        ("anything else", "anything else"),
        ("reason why", "done"),
        ("slow 3 1000", "0 1 2 "),
        ("comment 0", None),
        ("stall", "timeout"),
        ("stall 2", "timeout"),
        ("cut 2", "request_error"),
        ("close 2", "request_error"),
        ("end 2", "request_error"),
        ("status 429", "rate_limit"),
        ("html 200", "invalid_response"),
        ("error 503", "service_unavailable"),
        ("garbage", "invalid_response"),
        ("nodone", "all here"),
        ("long 3", "xxx"),
        ("filter", "all here"),
    ],
)
async def test_the_upstream_does_what_the_text_says(model: OpenAIModel, told: str, outcome: str | None) -> None:
    try:
        async with asyncio.timeout(3 * IDLE_SECONDS):
            found: str | None = text_of(await ask(model, user(told)))
    except ModelCallFailed as failure:
        found = failure.error_type
    except TimeoutError:
        found = None
    assert found == outcome


async def test_the_upstream_can_fail_a_few_times_and_then_answer(model: OpenAIModel) -> None:
    told = "2x status 503 then say hello"
    assert [(await fail(model, told))[0].error_type for _ in range(2)] == ["service_unavailable"] * 2
    assert text_of(await ask(model, user(told))) == "hello"


async def test_the_upstream_checks_keys() -> None:
    async with Upstream(key="right") as upstream, OpenAIModel(upstream.url, "wrong", "m") as model:
        assert (await fail(model))[0].error_type == "authentication_error"
