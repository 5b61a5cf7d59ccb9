"""What all signed tokens have in common: how they are judged, and by which names a refusal is logged."""

import re
from collections.abc import Sequence
from types import MappingProxyType
from typing import Any, Final

import jwt

from service.model.errors import Unauthenticated

MAX_CHARACTERS: Final = 8 * 1024
"""A longer token is refused before anything in it is looked at."""

LEEWAY_SECONDS: Final = 30
"""So far the clock of whoever made a token may be from ours."""

_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+", re.ASCII)
_REASONS: Final = MappingProxyType(
    {
        jwt.ExpiredSignatureError: "expired_token",
        jwt.ImmatureSignatureError: "early_token",
        jwt.InvalidAudienceError: "wrong_audience",
        jwt.InvalidIssuerError: "wrong_issuer",
        jwt.InvalidSignatureError: "wrong_signature",
        jwt.InvalidAlgorithmError: "wrong_algorithm",
        jwt.MissingRequiredClaimError: "missing_claim",
    }
)


def require_token(text: str) -> None:
    """Raises Unauthenticated for what has not the length and the form of a signed token."""
    if len(text) > MAX_CHARACTERS or not _TOKEN.fullmatch(text):
        raise Unauthenticated("malformed_token")


def claims_of(
    text: str,
    key: bytes | jwt.PyJWK,
    algorithm: str,
    required: Sequence[str],
    *,
    audience: str,
    issuer: str | None = None,
) -> dict[str, Any]:
    """What a token says that is signed so, for this audience, and is within its time. Raises Unauthenticated.

    What is `required` must be there: the library passes over times that a token does not name.
    """
    try:
        return jwt.decode(
            text,
            key,
            algorithms=[algorithm],
            audience=audience,
            issuer=issuer,
            leeway=LEEWAY_SECONDS,
            options={"require": list(required), "enforce_minimum_key_length": True},
        )
    except jwt.PyJWTError as error:
        raise Unauthenticated(_REASONS.get(type(error), "malformed_token")) from None
