"""Every error that the house raises on purpose, as one tree.

The first line of a class's docstring is its default message and is meant for people: it names no store, no host
and no secret. Adapters turn foreign errors into these; `service.http.problems` maps them to HTTP statuses.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager


class PlayheadError(Exception):
    """Something went wrong."""

    error_type: str = "unexpected_error"

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").partition("\n")[0])


class InvalidInput(PlayheadError):
    """The input is not valid."""

    error_type = "validation_error"


class UnknownMessage(InvalidInput):
    """There is no such message in this session."""


class NotFound(PlayheadError):
    """There is no such thing here."""

    error_type = "not_found"


class NoBroker(NotFound):
    """There is no message broker here, and so no dead letters: PLAYHEAD_AMQP_URL is not set."""

    error_type = "no_broker"


class SessionBusy(PlayheadError):
    """A turn of this session is still running."""

    error_type = "session_busy"


class SessionOwned(PlayheadError):
    """This session has an owner already."""

    error_type = "session_owned"


class MailboxFull(PlayheadError):
    """Too many messages wait in this session already. Post again when the turn has taken some of them."""

    error_type = "mailbox_full"


class TooManyOperations(PlayheadError):
    """Too many operations of this session are pending already."""

    error_type = "too_many_operations"


class MessageExists(PlayheadError):
    """There is a message with this id in the session already."""

    error_type = "message_exists"


class OperationEnded(PlayheadError):
    """This operation has ended already, and otherwise than this says. How it ended stays."""

    error_type = "conflicting"


class NothingFailed(PlayheadError):
    """No follow-up of this operation has failed."""

    error_type = "nothing_failed"


class NotAsked(InvalidInput):
    """This operation does not wait for such an answer."""


class KeyReused(InvalidInput):
    """This idempotency key was used for another request."""

    error_type = "idempotency_key_reused"


class TooManyCommands(PlayheadError):
    """As many background commands run here as may. Wait until one has ended, or kill one."""

    error_type = "too_many_commands"


class CommandNotStarted(PlayheadError):
    """The command could not be started."""

    error_type = "command_not_started"


class ConfigurationError(PlayheadError):
    """The configuration is not usable. Stops the start; the message is one line and names the setting."""

    error_type = "configuration_error"


class StoreUnreachable(ConfigurationError):
    """Nothing answers where a store is said to be. It may be the setting that is wrong, or the store be away."""


class StoreUnavailable(PlayheadError):
    """A store did not answer in time. Nothing is known about whether the request took effect."""

    error_type = "service_unavailable"


class LogUnavailable(StoreUnavailable):
    """The log store did not answer in time."""


class DatabaseUnavailable(StoreUnavailable):
    """The database did not answer in time."""


class BrokerUnavailable(StoreUnavailable):
    """The message broker did not answer in time, or refused."""


class IssuerUnavailable(StoreUnavailable):
    """The keys that tokens are checked with cannot be had at the moment."""


class Unauthenticated(PlayheadError):
    """A valid credential is needed here: an API key or a bearer token."""

    error_type = "unauthenticated"

    def __init__(self, reason: str) -> None:
        """`reason` is a class of reasons, for a log line. Who asked is told the same whatever it is."""
        super().__init__()
        self.reason = reason


class NotTheHolder(PlayheadError):
    """The task is no longer this worker's to write."""


class TakenOver(NotTheHolder):
    """A later holder has taken the task over."""


class LogClosed(NotTheHolder):
    """The log has its terminal event."""


class InvalidBatch(PlayheadError):
    """The events that were to be stored do not make a log."""


class LogTailLost(PlayheadError):
    """The log store lost events that it had acknowledged, and its writer has them no more. Take a new epoch, go on."""


def cause_of(error: BaseException) -> str:
    """What a log line names as the cause of an error: the class of what it was raised from, or else its own."""
    return type(error.__cause__ or error).__name__


@contextmanager
def translate(table: Mapping[type[BaseException], type[PlayheadError]]) -> Iterator[None]:
    """Raise the house's error for a foreign one: `with translate({RedisError: LogUnavailable}): …`.

    The first entry whose class fits wins. The foreign error stays as the cause; its text is not repeated, since it
    may hold an address or a key.
    """
    try:
        yield
    except tuple(table) as error:
        for foreign, ours in table.items():
            if isinstance(error, foreign):
                raise ours() from error
        raise
