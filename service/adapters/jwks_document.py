"""Where an issuer's keys are fetched from: a file, or a URL."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Final

import aiohttp

from service.model.errors import IssuerUnavailable, translate

FETCH_SECONDS: Final = 5.0
MAX_DOCUMENT_BYTES: Final = 256 * 1024
"""A longer document is not read further, and is not used."""


def jwks_document(place: str) -> Callable[[], Awaitable[bytes]]:
    """What fetches the document that is there. It raises IssuerUnavailable where that fails or takes too long."""
    return partial(_from_url, place) if is_url(place) else partial(_from_file, Path(place))


def is_url(place: str) -> bool:
    """Whether this is a URL; else it is the path of a file."""
    return "://" in place


async def _from_file(path: Path) -> bytes:
    with translate({OSError: IssuerUnavailable}):
        return _whole(await asyncio.to_thread(_start_of, path))


def _start_of(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_DOCUMENT_BYTES + 1)


async def _from_url(url: str) -> bytes:
    """A redirection is not followed: the keys are those that are there, not those that some other place has."""
    timeout = aiohttp.ClientTimeout(total=FETCH_SECONDS)
    with translate({aiohttp.ClientError: IssuerUnavailable, OSError: IssuerUnavailable}):  # a time-out is an OSError
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(url, allow_redirects=False) as answer,
        ):
            if answer.status != 200:
                raise IssuerUnavailable
            document = bytearray()
            async for piece in answer.content.iter_any():
                document += piece
                if len(document) > MAX_DOCUMENT_BYTES:
                    raise IssuerUnavailable
            return bytes(document)


def _whole(document: bytes) -> bytes:
    if len(document) > MAX_DOCUMENT_BYTES:
        raise IssuerUnavailable
    return document
