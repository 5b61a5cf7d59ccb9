"""Which PostgreSQL is taken at the start. With real servers: tests/cli/test_command.py."""

import pytest

from service.adapters.postgres_schema import ISOLATION, fault_of


@pytest.mark.parametrize("major", [15, 16, 18, 99])
def test_a_primary_of_15_or_later_is_taken(major: int) -> None:
    assert fault_of(major, replica=False, read_only=False, isolation=ISOLATION) is None


def test_an_older_one_is_refused() -> None:
    assert (
        fault_of(14, replica=False, read_only=False, isolation=ISOLATION)
        == "PostgreSQL 15 or later is needed, this is version 14"
    )


def test_a_replica_is_refused() -> None:
    assert fault_of(15, replica=True, read_only=True, isolation=ISOLATION) == "a primary is needed, this is a replica"


def test_one_that_takes_no_writes_is_refused() -> None:
    assert "read-only" in (fault_of(15, replica=False, read_only=True, isolation=ISOLATION) or "")


def test_of_another_isolation() -> None:
    assert "repeatable read" in (fault_of(15, replica=False, read_only=False, isolation="repeatable read") or "")
