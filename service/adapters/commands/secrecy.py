"""What a command may see of the process that runs it."""

import ctypes
from typing import Final

from service.model.errors import ConfigurationError

_PR_SET_DUMPABLE: Final = 4


def hide_memory() -> None:
    """Keep other processes of our user from our memory and from `/proc/<pid>/environ`. From root nothing is kept.

    It is no wall around commands: they are the same user, and may read and change what that one may. It only keeps from
    them the keys that stand in this process; whoever started it may have the same environment. No core file is written
    any more. Linux only. Raises ConfigurationError.
    """
    if ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise ConfigurationError("PLAYHEAD_WORKSPACE_DIR: this process cannot hide its memory from commands")
