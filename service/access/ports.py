"""What is needed of a database to know who is asking. All of it raises DatabaseUnavailable past its deadline."""

from collections.abc import Sequence
from typing import Protocol

from service.model.api_key import ApiKey, KeyId, NewKey


class KeyStore(Protocol):
    """API keys as the database keeps them. Each call is atomic; whoever asks after it sees what it did."""

    async def create(self, key: NewKey) -> ApiKey:
        """Keep a key whose id nothing has yet; it expires by the store's clock."""

    async def find(self, key_id: KeyId) -> ApiKey | None:
        """The key with this id, also where it has expired or was revoked; or None."""

    async def list(self, limit: int) -> Sequence[ApiKey]:
        """The newest keys, newest first; expired and revoked ones too."""

    async def revoke(self, key_id: KeyId) -> ApiKey | None:
        """Have it refused from now on; answers it as it stands then, or None. A repeat changes nothing."""


class TokenKey(Protocol):
    """What stream tokens are signed with."""

    async def token_key(self) -> bytes:
        """32 random bytes, the same for all who share the database, for as long as it is there."""
