"""What Markdown looks like in a browser, under the page's policy: whatever is written, it is shown and does nothing."""

import json
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from playwright.async_api import Browser, Page

from service.http.app import serving
from tests.acceptance.browser import chromium
from tests.console.pages import STATIC
from tests.node import NO_NODE, node

pytestmark = pytest.mark.asyncio(loop_scope="module")

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
    "require-trusted-types-for 'script'"
)
PAGE = """<!doctype html><html lang="en"><title>Markdown</title><link rel="stylesheet" href="/style/markdown.css">
<main></main><script type="module" src="/shown.js"></script></html>"""
SHOWN = """import { markdownView } from "./parts/markdown_view.js";
document.addEventListener("securitypolicyviolation", event => console.error(`refused: ${event.blockedURI}`));
globalThis.view = markdownView();
document.querySelector("main").append(view.element);
globalThis.show = text => { view.update(text); view.flush(); };
"""
ELEMENTS = """view => [...view.element.querySelectorAll("*")].map(
    element => [element.localName, ...element.getAttributeNames()])"""
BARE = ("strong", "em", "del", "br", "hr", "code", "table", "thead", "tbody", "tr", "span")
ALLOWED = {
    **{name: {"class"} for name in BARE},
    **{name: {"class", "dir"} for name in ("p", "blockquote", "li", "ul", "th", "td")},
    "a": {"href", "rel", "target", "title"},
    "button": {"type", "class", "aria-label"},
    "div": {"class", "dir", "role", "aria-level", "aria-label", "tabindex"},
    "input": {"type", "disabled", "checked", "aria-label"},
    "ol": {"class", "dir", "start"},
    "pre": {"dir", "tabindex"},
}


@dataclass
class Shown:
    """A page with a view on it, and all that it complained of, asked for or asked."""

    page: Page
    said: list[str] = field(default_factory=list)

    async def show(self, text: str) -> None:
        """In JSON, which has a way to write half of a character."""
        await self.page.evaluate("text => show(JSON.parse(text))", json.dumps(text))

    async def count(self, selector: str) -> int:
        return await self.page.locator(f".markdown {selector}").count()

    async def elements(self) -> list[list[str]]:
        found: list[list[str]] = await self.page.evaluate(f"() => ({ELEMENTS})(view)")
        return found

    async def text(self) -> str:
        """In JSON, too."""
        return str(await self.page.evaluate("() => JSON.stringify(view.element.textContent)"))


def samples() -> dict[str, Any]:
    """The texts that the reader of Markdown is tested with."""
    binary = node()
    if binary is None:
        pytest.skip(f"{NO_NODE}: hostile texts are not shown in a browser")
    file = Path(__file__).parent / "markdown_samples.mjs"
    code = f"import * as all from {json.dumps(file.as_uri())}; console.log(JSON.stringify(all))"
    ran = subprocess.run([binary, "--input-type=module", "-e", code], capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


async def page_of_markdown(_: web.Request) -> web.Response:
    return web.Response(text=PAGE, content_type="text/html", headers={"Content-Security-Policy": POLICY})


async def no_icon(_: web.Request) -> web.Response:
    return web.Response(status=204)


async def module_of_the_page(_: web.Request) -> web.Response:
    return web.Response(text=SHOWN, content_type="text/javascript")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as launched:
        if launched is None:
            pytest.skip("no chromium on the PATH (`make browser` installs it): the page is not shown")
        yield launched


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def url() -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_get("/", page_of_markdown)
    app.router.add_get("/shown.js", module_of_the_page)
    app.router.add_get("/favicon.ico", no_icon)
    app.router.add_static("/", STATIC)
    async with serving(app, "127.0.0.1", 0, write_timeout_seconds=10) as url:
        yield url


@pytest_asyncio.fixture(loop_scope="module")
async def shown(browser: Browser, url: str) -> AsyncIterator[Shown]:
    page = await browser.new_page()
    shown = Shown(page)
    page.on("console", lambda message: shown.said.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: shown.said.append(f"error: {error}"))
    page.on("popup", lambda popup: shown.said.append(f"popup: {popup.url}"))

    async def dismiss(dialog: Any) -> None:
        shown.said.append(f"dialog: {dialog.message}")
        await dialog.dismiss()

    page.on("dialog", dismiss)
    await page.goto(url)
    page.on("request", lambda request: shown.said.append(f"request: {request.url}"))
    yield shown
    await page.close()


async def test_what_is_hostile_is_shown_and_does_nothing(shown: Shown) -> None:
    for text in samples()["HOSTILE"]:
        await shown.show(text)
        for name, *attributes in await shown.elements():
            assert name in ALLOWED, text
            assert set(attributes) <= ALLOWED[name], text
        addresses = await shown.page.evaluate(
            "() => [...view.element.querySelectorAll('a')].map(link => link.protocol)"
        )
        assert set(addresses) <= {"https:", "http:", "mailto:"}, text
    assert shown.said == []


async def test_a_complaint_of_the_page_is_noticed(shown: Shown) -> None:
    await shown.page.evaluate("""() => {
        const image = document.createElement("img");
        image.src = "https://example.invalid/";
        document.body.append(image);
        return new Promise(done => document.addEventListener("securitypolicyviolation", done, {once: true}));
    }""")
    assert any("example.invalid" in said for said in shown.said)


async def test_tags_and_characters_are_text(shown: Shown) -> None:
    for text in ("<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "a\u202eb\u200bc \ud800 \x00 d"):
        await shown.show(text)
        assert json.loads(await shown.text()) == text
    assert shown.said == []


async def test_an_answer_has_its_elements(shown: Shown) -> None:
    await shown.show(samples()["ANSWER"])
    counts = {
        name: await shown.count(name)
        for name in ("[role=heading]", "ol", "li", "pre", "table", "th", "hr", "blockquote")
    }
    assert counts == {
        "[role=heading]": 1, "ol": 1, "li": 10, "pre": 3, "table": 1, "th": 2, "hr": 1, "blockquote": 2
    }  # fmt: skip
    assert await shown.count(".md-block") == await shown.count(".md-block[dir=auto]")
    link = shown.page.locator("td a")
    assert await link.get_attribute("rel") == "noopener noreferrer nofollow"
    assert await link.get_attribute("target") == "_blank"
    assert await link.get_attribute("title") == "its title (https://example.org/)"
    assert await shown.page.get_by_role("region", name="Table").get_attribute("tabindex") == "0"
    assert await shown.page.get_by_role("checkbox", name="done").is_checked()
    assert await shown.count(".md-language >> text=python") == 1
    assert shown.said == []


async def test_code_is_copied_whole(shown: Shown, url: str) -> None:
    await shown.page.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=url)
    lines = "\n".join(f"line {number}" for number in range(6000))
    await shown.show(f"~~~ text\n{lines}\n~~~\n\nBehind")
    assert await shown.count(".md-continues") >= 1
    await shown.page.get_by_role("button", name="Copy the code").click()
    await shown.page.get_by_text("Copied").wait_for()
    assert await shown.page.evaluate("() => navigator.clipboard.readText()") == lines


async def test_blocks_that_have_not_changed_are_the_same_elements(shown: Shown) -> None:
    await shown.show("# One\n\nTwo\n\nThr")
    await shown.page.evaluate("() => { globalThis.before = [...view.element.children]; }")
    await shown.show("# One\n\nTwo\n\nThree\n\nFour")
    same = await shown.page.evaluate("() => before.map((element, at) => element === view.element.children[at])")
    assert same == [True, True, False]
    await shown.show("# One\n")
    assert json.loads(await shown.text()) == "One"
    assert await shown.page.evaluate("() => before[0] === view.element.firstChild")


async def test_a_long_text_is_shown_over_several_frames(shown: Shown) -> None:
    frames = await shown.page.evaluate("""async () => {
        view.update("A **paragraph** of it.\\n\\n".repeat(5_000));
        const counts = [];
        while (view.element.childElementCount < 5_000) {
            await new Promise(requestAnimationFrame);
            counts.push(view.element.childElementCount);
        }
        return counts;
    }""")
    assert len(frames) > 3
    assert frames == sorted(frames)
    await shown.page.evaluate("() => { view.update('Other\\n\\n'.repeat(5_000)); view.flush(); }")
    assert await shown.page.evaluate("() => view.element.lastChild.textContent") == "Other"
    assert await shown.page.evaluate("() => view.element.childElementCount") == 5_000


async def test_what_is_closed_renders_no_more(shown: Shown) -> None:
    children = await shown.page.evaluate("""async () => {
        view.update("A\\n\\nB");
        view.close();
        await new Promise(requestAnimationFrame);
        await new Promise(requestAnimationFrame);
        return view.element.childElementCount;
    }""")
    assert children == 0
