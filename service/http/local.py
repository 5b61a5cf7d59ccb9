"""Who may ask a service that asks nobody who they are: programs of this machine that mean to."""

import re
from collections.abc import Collection
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Middleware

from service.http.problems import Handler, Problem

_LOCAL_HOST: Final = re.compile(r"(localhost|127(\.[0-9]{1,3}){3}|\[::1\])(:[0-9]{1,5})?", re.ASCII | re.IGNORECASE)


def only_local(origins: Collection[str]) -> Middleware:
    """The middleware that refuses what a page elsewhere makes a browser ask: under a foreign host name, or from another
    origin than its own and these."""

    @web.middleware
    async def refuse_foreign(request: web.Request, handler: Handler) -> web.StreamResponse:
        if not _LOCAL_HOST.fullmatch(request.host):
            raise Problem(403, "forbidden_host", "This service answers to the names of the local machine only.")
        given = request.headers.getall("Origin", [])
        if any(origin != f"http://{request.host}" and origin not in origins for origin in given):
            raise Problem(
                403, "forbidden_origin", "Only pages of this service's own origin (host and port) can use it."
            )
        return await handler(request)

    return refuse_foreign
