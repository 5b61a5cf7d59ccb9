"""The page: a chat, logs to look at, tasks and operations, in a browser.

Its files are served as they are: ES modules and stylesheets of our own, for which nothing is built and nothing is
fetched from elsewhere. It is a client like any other: whatever it shows and does goes over the routes that all have.
"""

from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Final

from aiohttp import web

from service.model.errors import NotFound

FILES: Final = Path(__file__).with_name("static")
PAGE: Final = "index.html"

HEADERS: Final = MappingProxyType(
    {
        "Content-Security-Policy": "; ".join(
            [
                *("default-src 'none'", "script-src 'self'", "style-src 'self'", "connect-src 'self'"),
                *("img-src 'self'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"),
                "require-trusted-types-for 'script'",
                "trusted-types 'none'",
            ]
        ),
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "no-cache",
    }
)
"""Nothing from elsewhere, nothing in line, no text that becomes markup. It is asked for again at each visit, and comes
only where it has changed: its modules are of one kind at any time."""

_TYPES: Final = MappingProxyType(
    {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
)


class _File:
    """What is answered with, and the name of just this content."""

    def __init__(self, body: bytes, kind: str) -> None:
        self.body = body
        self.kind = kind
        self.tag = sha256(body).hexdigest()


class Console:
    """Answers with the page's files, as they were at the start."""

    def __init__(self) -> None:
        found = {path.relative_to(FILES).as_posix(): path for path in FILES.rglob("*") if path.suffix in _TYPES}
        self._files = {name: _File(path.read_bytes(), _TYPES[path.suffix]) for name, path in found.items()}

    async def page(self, request: web.Request) -> web.Response:
        return self._answer(request, PAGE)

    async def file(self, request: web.Request) -> web.Response:
        return self._answer(request, "/".join(request.match_info.values()))

    def _answer(self, request: web.Request, name: str) -> web.Response:
        if name not in self._files:
            raise NotFound
        file = self._files[name]
        headers = {**HEADERS, "ETag": f'"{file.tag}"'}
        if any(each.value in (file.tag, "*") for each in request.if_none_match or ()):
            return web.Response(status=304, headers=headers)
        return web.Response(body=file.body, content_type=file.kind, charset="utf-8", headers=headers)
