"""A model call has an end, whatever the model does. In virtual time: hours pass at once."""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing

import pytest

from service.adapters.openai_model import OpenAIModel
from service.agent.model_call import MAX_CALL_SECONDS, MAX_SILENCE_SECONDS, pieces_of
from service.model.events import TextPart, Usage
from service.model.failures import ModelCallFailed
from service.model.generation import CallEnded, Piece, Prompt, TextPiece, Utterance
from service.model.ids import TaskId
from tests.adapters.upstream import Delta, Pause, Raw, Script, Upstream
from tests.races.loop import ImpatientLoop, ShuffledLoop

ENDED = CallEnded("stop", Usage(1, 2))


class Slow:
    """A model that waits so many seconds before each piece; `closed` says when its call was ended."""

    provider = "the slow one"

    def __init__(self, seconds: float, *pieces: Piece, error: Exception | None = None) -> None:
        self._seconds = seconds
        self._pieces = pieces
        self._error = error
        self.closed: float | None = None

    async def stream(self, task_id: TaskId, prompt: Prompt) -> AsyncGenerator[Piece]:
        loop = asyncio.get_running_loop()
        try:
            for piece in self._pieces:
                await asyncio.sleep(self._seconds)
                yield piece
            if self._error is not None:
                raise self._error
        finally:
            self.closed = loop.time()


@pytest.fixture
def loop() -> Iterator[ShuffledLoop]:
    loop = ShuffledLoop(7)
    yield loop
    assert not asyncio.all_tasks(loop)
    loop.run(loop.shutdown_asyncgens())
    loop.close()


async def heard(model: Slow, *, caller_seconds: float = 0) -> list[Piece]:
    """All that is said, by a caller who takes so long for each piece."""
    pieces: list[Piece] = []
    async with aclosing(pieces_of(model, TaskId("t"), [])) as said:
        async for piece in said:
            pieces.append(piece)
            await asyncio.sleep(caller_seconds)
    return pieces


def test_what_a_model_says_comes_as_it_is(loop: ShuffledLoop) -> None:
    pieces = [TextPiece("a"), TextPiece("b"), ENDED]
    assert loop.run(heard(Slow(MAX_SILENCE_SECONDS - 1, *pieces))) == pieces


def test_a_model_that_says_nothing_any_more_is_a_timeout(loop: ShuffledLoop) -> None:
    model = Slow(MAX_SILENCE_SECONDS + 1, ENDED)
    with pytest.raises(ModelCallFailed) as failed:
        loop.run(heard(model))
    assert (failed.value.error_type, failed.value.is_retryable) == ("timeout", True)
    assert model.closed == loop.now == MAX_SILENCE_SECONDS


def test_a_model_that_never_comes_to_an_end_is_a_timeout(loop: ShuffledLoop) -> None:
    """One that is not waited for again: it had its time."""
    model = Slow(MAX_SILENCE_SECONDS * 0.7, *[TextPiece(".")] * 100)
    with pytest.raises(ModelCallFailed) as failed:
        loop.run(heard(model))
    assert (failed.value.error_type, failed.value.is_retryable) == ("timeout", False)
    assert model.closed == loop.now == MAX_CALL_SECONDS


def test_time_that_the_caller_takes_is_no_silence(loop: ShuffledLoop) -> None:
    pieces = [TextPiece("a"), TextPiece("b"), ENDED]
    assert loop.run(heard(Slow(1, *pieces), caller_seconds=MAX_SILENCE_SECONDS * 2)) == pieces


@pytest.mark.parametrize("error", [TimeoutError(), ModelCallFailed("rate_limit"), ValueError()], ids=repr)
def test_an_error_of_the_models_own_stays_what_it_is(loop: ShuffledLoop, error: Exception) -> None:
    with pytest.raises(type(error)) as raised:
        loop.run(heard(Slow(1, TextPiece("a"), error=error)))
    assert raised.value is error


def test_a_caller_that_is_cancelled_ends_the_call(loop: ShuffledLoop) -> None:
    async def cancelled() -> None:
        call = asyncio.create_task(heard(model))
        await asyncio.sleep(5)
        call.cancel()
        await asyncio.wait([call])
        assert call.cancelled()

    model = Slow(60, ENDED)
    loop.run(cancelled())
    assert model.closed == loop.now == 5


IDLE_SECONDS = 60.0


@pytest.mark.parametrize(
    ("between_comments", "ends_after"),
    [(IDLE_SECONDS * 0.8, MAX_SILENCE_SECONDS), (IDLE_SECONDS * 1.2, IDLE_SECONDS)],
    ids=["kept alive", "idle"],
)
def test_a_connection_that_is_only_kept_alive_is_a_timeout(between_comments: float, ends_after: float) -> None:
    """Comments are signs of life for the adapter, but nobody hears anything of the model."""

    async def kept_alive() -> float:
        comments = (Raw(b": keep-alive\n\n"), Pause(between_comments)) * 1000
        hello = Prompt((Utterance("user", (TextPart("Hi"),)),))
        async with Upstream() as upstream, OpenAIModel(upstream.url, "k", "m", idle_seconds=IDLE_SECONDS) as model:
            upstream.play(Script((Delta("So"), *comments)))
            async with aclosing(pieces_of(model, TaskId("t"), hello)) as pieces:
                assert await anext(pieces) == TextPiece("So")
                since = asyncio.get_running_loop().time()
                with pytest.raises(ModelCallFailed) as failed:
                    await anext(pieces)
                took = asyncio.get_running_loop().time() - since
            assert failed.value.error_type == "timeout"
            await upstream.requests[0].gone.wait()
        return took

    with asyncio.Runner(loop_factory=ImpatientLoop) as runner:
        assert runner.run(kept_alive()) == pytest.approx(ends_after, abs=5)
