"""The two folders: the data folder, which is kept, and a short private one for the sockets."""

import hashlib
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from service.model.errors import ConfigurationError

DATA_PATH_BYTES = 900  # PostgreSQL's paths have 1024 (MAXPGPATH), those of its files below the data folder included
SOCKET_PATH_BYTES = 103  # sockaddr_un: 108 on Linux, 104 on macOS, with the closing zero
VALKEY_SOCKET = "valkey.sock"
POSTGRES_SOCKET = ".s.PGSQL.5432"


@dataclass(frozen=True, slots=True)
class Folders:
    """`data` is there, absolute, without links; `sockets` is there inside `private_sockets` only."""

    data: Path
    sockets: Path

    @property
    def valkey_socket(self) -> Path:
        return self.sockets / VALKEY_SOCKET

    @property
    def postgres_socket(self) -> Path:
        return self.sockets / POSTGRES_SOCKET


def open_folders(data_dir: Path) -> Folders:
    """Make the data folder if it is missing, and name the other. Raises ConfigurationError: no folder, a long path.

    The socket folder's name follows from the user and the data folder, so that a second process finds it again.
    """
    try:
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        return name_folders(data_dir)
    except (OSError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "a loop of links"
        raise ConfigurationError(f"PLAYHEAD_DATA_DIR: {data_dir} cannot be used as a folder: {reason}") from error


def name_folders(data_dir: Path) -> Folders:
    """The folders of a data folder that is there. Raises OSError, RuntimeError where it is not; ConfigurationError."""
    data = data_dir.resolve(strict=True)
    if (length := len(os.fsencode(data))) > DATA_PATH_BYTES:
        raise ConfigurationError(
            f"PLAYHEAD_DATA_DIR: its path has {length} bytes, and {DATA_PATH_BYTES} is the limit: name a shorter one"
        )
    digest = hashlib.sha256(os.fsencode(data)).hexdigest()[:8]
    sockets = Path(tempfile.gettempdir()) / f"playhead-{os.geteuid()}-{digest}"
    if not str(sockets).isprintable():  # as text, since both clients take it out of a URL
        raise ConfigurationError(f"TMPDIR: {str(sockets)!a} is no printable text: name another folder")
    length = len(os.fsencode(sockets / POSTGRES_SOCKET))
    if length > SOCKET_PATH_BYTES:
        raise ConfigurationError(
            f"TMPDIR: a socket in {sockets} would have a path of {length} bytes, and {SOCKET_PATH_BYTES} is the limit: "
            "name a shorter folder"
        )
    return Folders(data, sockets)


@contextmanager
def private_sockets(folders: Folders) -> Iterator[None]:
    """Have the socket folder: 0700, ours, without sockets of an earlier run; removed at the end, if nothing else is in.

    Only for the holder of the data folder's lock. Raises ConfigurationError: somebody else's, no folder.
    """
    _make_private(folders.sockets)
    _sweep(folders)
    try:
        yield
    finally:
        _sweep(folders)
        if not any(folders.sockets.iterdir()):
            folders.sockets.rmdir()


def _sweep(folders: Folders) -> None:
    for leftover in (folders.valkey_socket, folders.postgres_socket, folders.sockets / f"{POSTGRES_SOCKET}.lock"):
        leftover.unlink(missing_ok=True)


def _make_private(folder: Path) -> None:
    """Make the folder or check the one that is there: in a shared temp folder anybody can have made it first."""
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise ConfigurationError(f"TMPDIR: {folder} cannot be made: {error.strerror}") from error
    if not stat.S_ISDIR(found.st_mode):
        raise ConfigurationError(f"{folder} is not a folder: remove it, or set TMPDIR to a private folder")
    if found.st_uid != os.geteuid():
        raise ConfigurationError(
            f"{folder} belongs to uid {found.st_uid} and not to uid {os.geteuid()}, so somebody else could listen "
            "there: remove it, or set TMPDIR to a private folder"
        )
    if stat.S_IMODE(found.st_mode) != 0o700:
        folder.chmod(0o700)
