"""What can be an owner: the subject of a token, or what a key is made for."""

import unicodedata
from typing import Final

from service.model.ids import OwnerId

MAX_CHARACTERS: Final = 255


def owner_id(text: object) -> OwnerId | None:
    """The owner with this name: 1 to 255 characters, none of them a control character or half a pair; or None."""
    if not isinstance(text, str) or not 0 < len(text) <= MAX_CHARACTERS:
        return None
    return None if any(unicodedata.category(character) in {"Cc", "Cs"} for character in text) else OwnerId(text)
