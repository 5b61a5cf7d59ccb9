"""Who is asking, by what they show; and who is asking where nobody has to show anything."""

from collections.abc import Mapping
from typing import Final

from service.access.bearer import BearerTokens
from service.access.keys import PREFIX, Keys
from service.access.signatures import Signatures
from service.access.stream_tokens import StreamToken, StreamTokens
from service.model.caller import SCOPES, Caller
from service.model.errors import Unauthenticated
from service.model.ids import OwnerId, TaskId

LOCAL: Final = Caller("local", OwnerId("local"), frozenset(SCOPES), is_local=True)
"""Whoever asks a service of this machine that asks nobody who they are."""


class Callers:
    """Judges credentials. Each call raises Unauthenticated, or StoreUnavailable where nobody can judge.

    Where `is_local`, who shows nothing is the local owner; else everybody must show something.
    """

    def __init__(
        self,
        keys: Keys,
        tokens: BearerTokens | None,
        stream_tokens: StreamTokens,
        signatures: Signatures,
        *,
        is_local: bool,
    ) -> None:
        self._keys = keys
        self._tokens = tokens
        self._stream_tokens = stream_tokens
        self._signatures = signatures
        self._is_local = is_local

    def of_nothing(self) -> Caller:
        """Who shows nothing."""
        if not self._is_local:
            raise Unauthenticated("nothing_shown")
        return LOCAL

    async def of_key(self, text: str) -> Caller:
        """Who shows this API key."""
        return await self._keys.caller(text)

    async def of_bearer(self, text: str) -> Caller:
        """Who bears this: a token of the issuer, or an API key."""
        if text.startswith(PREFIX):
            return await self._keys.caller(text)
        if self._tokens is None:
            raise Unauthenticated("no_issuer")
        return await self._tokens.caller(text)

    def of_signature(self, headers: Mapping[str, str], body: bytes) -> Caller:
        """Who signed this body: a remote tool, which may complete its own operations and nothing else."""
        tool = self._signatures.tool_of(headers, body)
        return Caller(f"tool {tool}", None, frozenset({"complete"}), tool=tool)

    async def of_stream_token(self, text: str) -> tuple[Caller, TaskId]:
        """Who shows this stream token, and the task whose stream they may read."""
        caller, task_id = await self._stream_tokens.caller(text)
        if caller.is_local and not self._is_local:
            raise Unauthenticated("local_token")
        return caller, task_id

    async def stream_token(self, caller: Caller, task_id: TaskId) -> StreamToken:
        """A token for the stream of this task, which is known to be the caller's. Raises DatabaseUnavailable."""
        return await self._stream_tokens.mint(caller, task_id)
