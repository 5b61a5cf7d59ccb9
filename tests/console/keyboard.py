"""Going about the page without a mouse."""

from playwright.async_api import Page


async def focused(page: Page) -> str:
    """What has the focus is called."""
    label = "each => each.ariaLabel || each.labels?.[0]?.innerText || each.innerText || ''"
    name: str = await page.evaluate(f"() => ({label})(document.activeElement)")
    return name.strip().split("\n")[0]


async def tab_to(page: Page, name: str, most: int = 60) -> None:
    """Press Tab until this has the focus, which can be seen."""
    for _ in range(most):
        await page.keyboard.press("Tab")
        if await focused(page) == name:
            seen = await page.evaluate("() => getComputedStyle(document.activeElement).outlineStyle")
            assert seen != "none", f"nobody sees that {name} has the focus"
            return
    raise AssertionError(f"{name} cannot be reached with Tab")
