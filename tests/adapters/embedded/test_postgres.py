"""The database folder: made whole or not at all, and only used by its own version."""

import os
import signal
from pathlib import Path

import pytest

from service.adapters.embedded.binaries import PostgresPrograms
from service.adapters.embedded.folders import Folders
from service.adapters.embedded.kept import Ground
from service.adapters.embedded.postgres import postgres_server, postgres_url
from service.adapters.embedded.privileges import same_user
from service.model.errors import ConfigurationError


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    return Ground(tmp_path, os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT), str(tmp_path))


def programs(tmp_path: Path, initdb: str) -> PostgresPrograms:
    script = tmp_path / "initdb"
    script.write_text(f"#!/bin/sh\n{initdb}\n")
    script.chmod(0o755)
    return PostgresPrograms(tmp_path / "postgres-program", script, 18)


async def made(tmp_path: Path, ground: Ground, initdb: str) -> None:
    await postgres_server(programs(tmp_path, initdb), same_user(), Folders(tmp_path, tmp_path), ground)


MAKES = 'echo 18 > "$2/PG_VERSION"'


@pytest.mark.parametrize("death", ["kill -9 $$", "echo 'initdb: error: no room'; exit 1"])
async def test_an_initdb_that_ends_half_way_leaves_nothing_that_looks_ready(
    tmp_path: Path, ground: Ground, death: str
) -> None:
    with pytest.raises(ConfigurationError, match=r"initdb failed: (it said nothing|no room)"):
        await made(tmp_path, ground, f"{MAKES}; touch $2/rubbish; {death}")
    assert not (tmp_path / "postgres").exists()
    assert (tmp_path / "postgres.init" / "rubbish").exists()
    await made(tmp_path, ground, MAKES)
    assert [entry.name for entry in (tmp_path / "postgres").iterdir()] == ["PG_VERSION"]


async def test_a_folder_of_another_major_version_is_refused(tmp_path: Path, ground: Ground) -> None:
    (tmp_path / "postgres").mkdir()
    (tmp_path / "postgres" / "PG_VERSION").write_text("15\n")
    with pytest.raises(ConfigurationError, match="is of PostgreSQL 15 and the program here is 18"):
        await made(tmp_path, ground, "exit 1")


@pytest.mark.parametrize("garbage", [b"\xff\xfe\x00\x01", b"", b"\x1b[31m", b"\n18\n"])
async def test_a_version_that_is_no_number_is_refused(tmp_path: Path, ground: Ground, garbage: bytes) -> None:
    (tmp_path / "postgres").mkdir()
    (tmp_path / "postgres" / "PG_VERSION").write_bytes(garbage)
    with pytest.raises(ConfigurationError, match=r"^PLAYHEAD_DATA_DIR: .*PG_VERSION holds no version$"):
        await made(tmp_path, ground, "exit 1")


async def test_a_pid_in_postmaster_pid_that_is_somebody_elses_now_is_forgotten(tmp_path: Path, ground: Ground) -> None:
    await made(tmp_path, ground, MAKES)
    (tmp_path / "postgres" / "postmaster.pid").write_text(f"{os.getppid()}\n")
    await made(tmp_path, ground, "exit 1")
    assert not (tmp_path / "postgres" / "postmaster.pid").exists()


def test_the_url_names_its_port_and_quotes_its_folder() -> None:
    folders = Folders(Path("/data"), Path("/tmp/a b&c"))
    assert postgres_url(folders) == "postgresql://postgres@/postgres?host=%2Ftmp%2Fa%20b%26c&port=5432"


async def test_fast_shutdown_is_what_postgres_is_asked_for(tmp_path: Path, ground: Ground) -> None:
    server = await postgres_server(programs(tmp_path, MAKES), same_user(), Folders(tmp_path, tmp_path), ground)
    assert server.program.stop_signal == signal.SIGINT
