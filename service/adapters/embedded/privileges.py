"""As whom Postgres runs: it refuses to be root, and in containers and on build machines we often are.

As an ordinary user nothing changes. As root on Linux, it runs in a user namespace in which root looks like `nobody`:
its files stay root's. Where no namespace may be made (a default Docker container) or the namespace's root cannot reach
the folders, it runs as `nobody`, who gets the database folder, and keeps of root's powers the one to pass folders.
A user without an entry in /etc/passwd (`docker run --user 12345`) is nobody in a namespace too: initdb wants a name.
"""

import os
import pwd
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from service.adapters.embedded.kept import KEEPER
from service.adapters.embedded.processes import ask
from service.model.errors import ConfigurationError

NOBODY = 65534  # where /etc/passwd does not say otherwise
PROBE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Privileges:
    """`identity` is the keeper's word for it; the database folder belongs to `uid` and `gid`."""

    identity: str
    uid: int
    gid: int


async def detect_privileges(paths: Sequence[Path]) -> Privileges:
    """The first way of running Postgres that works here and reaches all of `paths`. Takes about 30 ms as root.

    Raises ConfigurationError when there is none, with the reason.
    """
    if os.geteuid() != 0:
        return await _detect_ordinary(paths)
    if sys.platform != "linux":
        raise ConfigurationError(
            "Postgres does not run as root: run Playhead as another user, or set PLAYHEAD_POSTGRES_URL"
        )
    reasons = []
    for privileges in (user_namespace(), other_user()):
        if not (reason := await why_not(privileges, paths)):
            return privileges
        reasons.append(reason)
    raise ConfigurationError(
        f"Postgres does not run as root, and neither a user namespace ({reasons[0]}) nor the user nobody "
        f"({reasons[1]}) works here: run Playhead as another user, or set PLAYHEAD_POSTGRES_URL"
    )


async def _detect_ordinary(paths: Sequence[Path]) -> Privileges:
    try:
        pwd.getpwuid(os.geteuid())
    except KeyError:
        reason = await why_not(user_namespace(), paths)
        if not reason:
            return user_namespace()
        raise ConfigurationError(
            f"uid {os.geteuid()} has no name in /etc/passwd, which Postgres asks for, and no user namespace can help "
            f"({reason}): add an entry, or set PLAYHEAD_POSTGRES_URL"
        ) from None
    return same_user()


def same_user() -> Privileges:
    return Privileges("same", os.geteuid(), os.getegid())


def user_namespace() -> Privileges:
    return Privileges(f"namespace:{_nobody()}", os.geteuid(), os.getegid())


def other_user() -> Privileges:
    return Privileges(f"uid:{_nobody()}", _nobody(), _nobody())


def _nobody() -> int:
    try:
        return pwd.getpwnam("nobody").pw_uid
    except KeyError:
        return NOBODY


async def why_not(privileges: Privileges, paths: Sequence[Path]) -> str:
    """Why this way does not work or does not reach a path, in one line; empty when it does."""
    command: tuple[str | Path, ...] = (sys.executable, "-I", "-S", KEEPER, "probe", privileges.identity, *paths)
    code, printed = await ask(command, PROBE_SECONDS)
    return "" if code == 0 else printed.strip() or f"the probe ended with {code}"


def give(folder: Path, privileges: Privileges) -> None:
    """Make the folder and all in it belong to whom Postgres runs as, if it does not yet. Needs root for a change.

    The folder itself goes last: a change that was interrupted is seen, and done again, at the next start.
    Raises ConfigurationError when it is somebody else's and we are not root.
    """
    owner = folder.lstat().st_uid
    if owner == privileges.uid:
        return
    if os.geteuid() != 0:
        raise ConfigurationError(
            f"{folder} belongs to uid {owner} and this is uid {os.geteuid()}: run as that user, or set "
            "PLAYHEAD_DATA_DIR to another folder"
        )
    for _, folders, files, place in os.fwalk(folder, topdown=False):
        for name in (*folders, *files):
            os.chown(name, privileges.uid, privileges.gid, dir_fd=place, follow_symlinks=False)
    os.chown(folder, privileges.uid, privileges.gid)
