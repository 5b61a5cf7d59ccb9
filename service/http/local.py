"""Who may ask: until there are owners, only programs of this machine that mean to."""

import re
from typing import Final

from aiohttp import web

from service.http.problems import Handler, Problem
from service.model.caller import SCOPES, Caller, Reach
from service.model.ids import OwnerId

_LOCAL_HOST: Final = re.compile(r"(localhost|127(\.[0-9]{1,3}){3}|\[::1\])(:[0-9]{1,5})?", re.ASCII | re.IGNORECASE)


@web.middleware
async def only_local(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse what a page elsewhere makes a browser ask: it comes under a foreign host name or from another origin."""
    if not _LOCAL_HOST.fullmatch(request.host):
        raise Problem(403, "forbidden_host", "This service answers to the names of the local machine only.")
    if any(origin != f"http://{request.host}" for origin in request.headers.getall("Origin", [])):
        raise Problem(403, "forbidden_origin", "Only pages of this service's own origin (host and port) can use it.")
    return await handler(request)


CALLER: Final = Caller("local", OwnerId("local"), frozenset(SCOPES), is_local=True)


def reach(request: web.Request) -> Reach:
    return CALLER.reach(frozenset())


def owner(request: web.Request) -> OwnerId | None:
    return CALLER.owner
