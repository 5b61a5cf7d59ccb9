"""Bearer tokens: JWTs of an issuer, for people. The subject is the owner."""

from typing import Final

import jwt

from service.access.jwks import Jwks
from service.access.owners import owner_id
from service.access.tokens import claims_of, require_token
from service.model.caller import Caller, Scope
from service.model.errors import Unauthenticated

REQUIRED: Final = ("exp", "iat", "aud", "iss", "sub")
SCOPES: Final[frozenset[Scope]] = frozenset({"read", "write"})
"""What a token is good for."""

SHARED_ALGORITHM: Final = "HS256"


class BearerTokens:
    """Who a token is of: signed with the secret that is shared with the issuer, or with one of the issuer's keys.

    The algorithm is never the token's choice: it is HS256 with a secret, and with a key the key's own.
    """

    def __init__(self, keys: bytes | Jwks, *, issuer: str, audience: str) -> None:
        self._keys = keys
        self._issuer = issuer
        self._audience = audience

    async def caller(self, text: str) -> Caller:
        """Who shows this token. Raises Unauthenticated; IssuerUnavailable where the issuer's keys cannot be had."""
        require_token(text)
        key, algorithm = await self._key_of(text)
        claims = claims_of(text, key, algorithm, REQUIRED, audience=self._audience, issuer=self._issuer)
        owner = owner_id(claims["sub"])
        if owner is None:
            raise Unauthenticated("wrong_subject")
        return Caller("user", owner, SCOPES)

    async def _key_of(self, text: str) -> tuple[bytes | jwt.PyJWK, str]:
        if isinstance(self._keys, bytes):
            return self._keys, SHARED_ALGORITHM
        try:
            key_id = jwt.get_unverified_header(text).get("kid")
        except jwt.PyJWTError:
            raise Unauthenticated("malformed_token") from None
        key = await self._keys.key(key_id)
        if key is None:
            raise Unauthenticated("unknown_issuer_key")
        return key, key.algorithm_name
