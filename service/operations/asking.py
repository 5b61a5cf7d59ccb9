"""Questions to a person: `ask`, whose answer is the tool's output."""

from typing import Final

ASK: Final = "ask"
