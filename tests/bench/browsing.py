"""M15: a log of 100,000 events on the page, in Chromium.

Seconds from the navigation until the log's end is shown; and the longest time between two frames, while it opens, while
it is scrolled through from its end to its beginning, and while the slider goes anywhere in it. Beside it
stands the longest frame of a page on which nothing happens: what the machine alone does to frames.
"""

import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from itertools import islice
from statistics import median
from typing import Final

from playwright.async_api import Page, expect

from service.model import events as e
from service.model.events import Chunk
from service.model.ids import MessageId, PartId, SessionId, TaskId
from tests.acceptance.browser import chromium
from tests.bench.ground import Ground
from tests.bench.ours import OpenTask, open_tasks, serving
from tests.bench.table import Row, Target, alone, shown, skipped
from tests.console.log_page import LogPage

WORKLOAD: Final = "the page shows a log of {} events"
EVENTS: Final = 100_000
DELTAS: Final = 40
OPEN_TARGET: Final = Target(2, at_least=False)
FRAME_TARGET: Final = Target(100, at_least=False)
LIMIT_MILLISECONDS: Final = 60_000

_FRAMES: Final = """() => {
    let last = performance.now();
    window.longestFrame = 0;
    const look = now => {
        window.longestFrame = Math.max(window.longestFrame, now - last);
        last = now;
        requestAnimationFrame(look);
    };
    requestAnimationFrame(look);
}"""
_NOTHING: Final = """async () => {
    window.longestFrame = 0;
    for (let looks = 0; looks < 200; looks++) await new Promise(requestAnimationFrame);
    return window.longestFrame;
}"""
_SCROLL: Final = """async list => {
    window.longestFrame = 0;
    for (let looks = 200; looks >= 0; looks--) {
        list.scrollTop = list.scrollHeight * looks / 200;
        await new Promise(requestAnimationFrame);
    }
    return window.longestFrame;
}"""
_SCRUB: Final = """async slider => {
    window.longestFrame = 0;
    for (let looks = 0; looks < 100; looks++) {
        slider.value = String(1 + (looks * 61803) % Number(slider.max));
        slider.dispatchEvent(new Event("input"));
        await new Promise(requestAnimationFrame);
    }
    return window.longestFrame;
}"""


async def run(ground: Ground) -> list[Row]:
    """Four rows; a page of its own for each sample."""
    events = ground.sized(EVENTS, 2_000)
    workload = WORKLOAD.format(events)
    async with AsyncExitStack() as stack:
        browser = await stack.enter_async_context(chromium())
        if browser is None:
            return [skipped("M15", workload, "Chromium")]
        port = await stack.enter_async_context(serving(ground, "--only", "http"))
        task_id = await stack.enter_async_context(_filled(ground, events))
        taken = []
        for _ in range(ground.rounds):
            async with await browser.new_context(base_url=f"http://127.0.0.1:{port}") as profile:
                taken.append(await _sample(await profile.new_page(), task_id, events))
    await ground.clear()
    nothing, opened, *frames = ([sample[place] for sample in taken] for place in range(5))
    reference = f"an empty page {shown(median(nothing), 'ms')}"
    rows = [
        alone("M15", f"{workload}: longest frame, {what}", "ms", longest, FRAME_TARGET)
        for what, longest in zip(("opening", "scrolling", "scrubbing"), frames, strict=True)
    ]
    return [
        alone("M15", f"{workload}: open", "s", opened, OPEN_TARGET),
        *(replace(row, reference=reference) for row in rows),
    ]


async def _sample(page: Page, task_id: str, events: int) -> tuple[float, float, float, float, float]:
    """The longest frame of nothing, seconds until the end is shown, the other longest frames in milliseconds."""
    await page.add_init_script(f"({_FRAMES})()")
    await page.goto("/healthz")
    nothing = await page.evaluate(_NOTHING)
    log = LogPage(page, task_id)
    begun = time.monotonic()
    await log.open()
    await expect(log.chosen.locator(".event-n")).to_have_text(f"{events:,}", timeout=LIMIT_MILLISECONDS)
    opened = time.monotonic() - begun
    opening = await page.evaluate("window.longestFrame")
    scrolling = await log.list.evaluate(_SCROLL)
    return nothing, opened, opening, scrolling, await log.slider.evaluate(_SCRUB)


@asynccontextmanager
async def _filled(ground: Ground, events: int) -> AsyncGenerator[str]:
    """A log of so many events that has ended, of steps with texts and tools."""
    async with open_tasks(ground) as tasks:
        task: OpenTask = await tasks.open()
        task_id = task.path.split("/")[2]
        chunks = _told(TaskId(task_id), events)
        while batch := list(islice(chunks, 500)):
            await task.log.append(*batch)
        yield task_id


def _told(task_id: TaskId, events: int) -> Iterator[Chunk]:
    yield e.Start(MessageId("m"), e.StartMetadata(task_id, SessionId("s")))
    yield from islice(_steps(), events - 2)
    end = e.FinishMetadata(task_id, "succeeded", "", e.Usage(0, 0), "2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z")
    yield e.Finish("stop", end)


def _steps() -> Iterator[Chunk]:
    """Neighbours are of two parts: else they would be merged while they wait."""
    number = 0
    while True:
        number += 1
        text, thought, call = PartId(f"t{number}"), PartId(f"r{number}"), f"call_{number}"
        yield from (e.StartStep(), e.ReasoningStart(thought), e.TextStart(text))
        for word in range(DELTAS):
            yield e.ReasoningDelta(thought, f"So, {word} of {number}. ")
            yield e.TextDelta(text, f"The *{word}th* thing of step {number} is `{word * number}`. ")
        yield from (e.ReasoningEnd(thought), e.TextEnd(text), e.ToolInputAvailable(call, "think", {"thought": number}))
        yield e.MessageMetadata(e.CallMetadata("tool-calls", e.Usage(10, DELTAS), 1, 10))
        yield from (e.ToolOutputAvailable(call, "ok"), e.FinishStep())
