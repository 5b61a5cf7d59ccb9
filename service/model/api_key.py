"""An API key as the database keeps it: who it is for and what it may do, and of its secret only a hash."""

from dataclasses import dataclass
from datetime import datetime
from typing import NewType

from service.model.caller import Scope
from service.model.ids import OwnerId

KeyId = NewType("KeyId", str)
"""Twelve hexadecimal digits. Public: it stands in lists and in log lines."""


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that is to be kept."""

    id: KeyId
    secret_sha256: bytes
    owner: OwnerId | None
    """Whose it is; None: the service's."""
    scopes: frozenset[Scope]
    name: str
    lifetime_seconds: int | None
    """From the moment that it is kept; None: it does not expire."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key that is kept."""

    id: KeyId
    secret_sha256: bytes
    owner: OwnerId | None
    scopes: frozenset[Scope]
    name: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
