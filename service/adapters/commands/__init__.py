"""Background commands: a shell's processes, run for a session in its folder, of which none outlives its end.

The map: `runner` is the door (`Commands`), `folders` says where a session's commands run, `excerpt` keeps head and tail
of what they print, `warden` is the script between us and each of them: it finds and ends all that a command has
started, also when we are gone; `secrecy` keeps our environment from them.
"""

from service.adapters.commands.folders import session_folder
from service.adapters.commands.runner import GRACE_SECONDS, Commands, Running
from service.adapters.commands.secrecy import hide_memory

__all__ = ["GRACE_SECONDS", "Commands", "Running", "hide_memory", "session_folder"]
