"""What the house says of an error."""

import pytest

from service.model.errors import DatabaseUnavailable, LogUnavailable, cause_of, translate


def test_the_cause_of_an_error_is_what_it_was_raised_from_or_else_itself() -> None:
    assert cause_of(LogUnavailable()) == "LogUnavailable"
    with pytest.raises(DatabaseUnavailable) as raised, translate({ConnectionResetError: DatabaseUnavailable}):
        raise ConnectionResetError("postgresql://u:hunter2@host")
    assert cause_of(raised.value) == "ConnectionResetError"
