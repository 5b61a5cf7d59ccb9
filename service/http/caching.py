"""What may be kept of an answer: nothing, unless its handler says otherwise.

Streams say `no-cache, no-transform`, which EventSource and proxies need, and archived exports that their own client may
keep them. Nothing else does.
"""

from typing import Final

from aiohttp import web

NOT_KEPT: Final = "no-store, private"


async def keep_nothing(_: web.Request, answer: web.StreamResponse) -> None:
    """Say so on an answer that says nothing of it, before its head is written."""
    answer.headers.setdefault("Cache-Control", NOT_KEPT)
