"""The page's files, at the service's own door."""

import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from service.http.console import FILES
from tests.http.memory import Doors, opened

pytestmark = pytest.mark.asyncio(loop_scope="module")

KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
NAMES = sorted(path.relative_to(FILES).as_posix() for path in FILES.rglob("*") if path.is_file())
PATHS = {"/" if name == "index.html" else f"/console/{name}": name for name in NAMES}


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["local", "keys"])
async def doors(request: pytest.FixtureRequest) -> AsyncIterator[Doors]:
    async with opened(**({"api_keys": "on"} if request.param == "keys" else {})) as made:
        yield made


async def test_every_file_is_served_as_it_is_to_whoever_asks(doors: Doors) -> None:
    assert len(PATHS) > 20
    for path, name in PATHS.items():
        answer = await doors.ask("GET", path)
        assert (answer.status, answer.body) == (200, (FILES / name).read_bytes())
        assert answer.headers["content-type"] == f"{KINDS['.' + name.rpartition('.')[2]]}; charset=utf-8"


async def test_a_file_is_asked_for_again_and_comes_where_it_is_another_one(doors: Doors) -> None:
    for path in ("/", "/console/main.js", "/console/style/base.css"):
        first = await doors.ask("GET", path)
        assert first.headers["cache-control"] == "no-cache"
        again = await doors.ask("GET", path, [("If-None-Match", first.headers["etag"])])
        assert (again.status, again.body, again.headers["etag"]) == (304, b"", first.headers["etag"])
        assert again.headers["content-security-policy"] == first.headers["content-security-policy"]
        assert (await doors.ask("GET", path, [("If-None-Match", '"another"')])).status == 200


async def test_nothing_from_elsewhere_nothing_in_line_and_no_text_as_markup(doors: Doors) -> None:
    for path in PATHS:
        headers = (await doors.ask("GET", path)).headers
        policy = dict(each.partition(" ")[::2] for each in headers["content-security-policy"].split("; "))
        assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
        assert {policy[f"{kind}-src"] for kind in ("script", "style", "connect", "img")} == {"'self'"}
        assert (policy["require-trusted-types-for"], policy["trusted-types"]) == ("'script'", "'none'")
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"


async def test_all_that_the_page_names_is_there() -> None:
    page = (FILES / "index.html").read_text()
    named = re.findall(r'(?:src|href)="(console/[^"]+)"', page)
    assert len(named) > 3
    assert {f"/{each}" for each in named} <= set(PATHS)
    assert set(re.findall(r"(?:src|href)=\"(?!console/|#)([^\"]+)\"", page)) == set()
