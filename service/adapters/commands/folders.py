"""Where the commands of a session run: a folder of its own below the workspace."""

import hashlib
import re
from pathlib import Path
from typing import Final

from service.model.errors import InvalidInput

_SAFE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", re.ASCII)


def checked_name(text: str) -> str:
    """An id that may be a file's name: it leads nowhere else, and is no option. Raises InvalidInput for others."""
    if not _SAFE.fullmatch(text):
        raise InvalidInput("An id has 1 to 128 letters, digits, dots, dashes and underscores here.")
    return text


def session_folder(workspace: Path, session_id: str) -> Path:
    """The session's folder; it is made if it is not there, for nobody else to look into (0700).

    It is called as the session is; where that can be no file's name, `_` and the id's SHA-256 in hex. No other session
    has it then: names that are kept begin with no underscore. Raises OSError where there can be no such folder, or
    something else has its name, such as a link to some other place.
    """
    folder = workspace.resolve() / _folder_name(session_id)
    workspace.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink():
        raise NotADirectoryError(str(folder))
    return folder


def _folder_name(session_id: str) -> str:
    if _SAFE.fullmatch(session_id):
        return session_id
    return "_" + hashlib.sha256(session_id.encode(errors="surrogatepass")).hexdigest()
