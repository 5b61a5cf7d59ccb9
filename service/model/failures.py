"""Why something that the agent asked for failed: one type each, one sentence for people each."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from service.model.errors import PlayheadError

MESSAGES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "authentication_error": "The model's key is missing or was refused.",
        "rate_limit": "The service is currently busy. Please try again in a moment.",
        "service_unavailable": "The service is currently unavailable. Please try again in a moment.",
        "timeout": "The request took too long. Please try again.",
        "http_error": "The service refused the request. Please try again.",
        "connection_error": "The service could not be reached. Please try again in a moment.",
        "request_error": "The connection to the service broke. Please try again.",
        "invalid_response": "The service gave an answer that could not be understood. Please try again.",
        "validation_error": "The request failed validation. Please try rephrasing.",
        "llm_parse_error": "The AI had trouble processing this request. Please try again.",
        "llm_timeout": "The request took too long. Please try again.",
        "llm_rate_limit": "The service is currently busy. Please try again in a moment.",
        "patch_error": "Failed to apply the changes. Please try a different approach.",
        "killed": "The background job was killed.",
        "died": "The background job was lost with the machine that ran it. Please try again.",
        "exit_code": "The background job ended with an error.",
        "worker_lost": "The work on this was interrupted too often. Please try again.",
    }
)
"""What a person reads. Never the text of an exception: it may hold an address or a key."""


RETRYABLE: Final = frozenset({"rate_limit", "service_unavailable", "timeout", "connection_error", "request_error"})
"""What may be gone at the next try."""


def message_for(error_type: str, action: str | None = None) -> str:
    """The sentence for a type; one for all types that the table does not name, with what was tried, if that is known.

    `action` is an infinitive without its `to`: "run render".
    """
    otherwise = "Something went wrong." if action is None else f"Failed to {action}."
    return MESSAGES.get(error_type, f"{otherwise} Please try again.")


def coded(error_type: str, text: str) -> str:
    """What stands in a log for a failure: for programs and for people."""
    return f"[code:{error_type}] {text}"


NO_RESULT: Final = coded("interrupted", "Interrupted, outcome unknown.")
CANCELLED: Final = coded("cancelled", "Cancelled.")
"""What a tool call has for a result that was given up, or whose worker was lost."""


class ModelCallFailed(PlayheadError):
    """A model call failed: `error_type` says why, the message is for people.

    `is_retryable` says whether another try may go better, by default by the type; `retry_after_seconds` is how long the
    provider asked not to be called, where it did.
    """

    def __init__(
        self, error_type: str, *, is_retryable: bool | None = None, retry_after_seconds: float | None = None
    ) -> None:
        super().__init__(message_for(error_type))
        self.error_type = error_type
        self.is_retryable = error_type in RETRYABLE if is_retryable is None else is_retryable
        self.retry_after_seconds = retry_after_seconds
