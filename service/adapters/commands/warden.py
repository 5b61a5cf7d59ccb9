"""A script that keeps one command running for a parent, and leaves no process of it behind.

    python -I -S warden.py NAME GRACE_SECONDS PROGRAM ARGUMENT...

NAME is for whoever looks at a list of processes. Standard input is the tie to the parent: PROGRAM starts with its first
byte. The end of it, which the kernel delivers even when the parent was killed with SIGKILL, or SIGTERM to the warden,
sends SIGTERM to PROGRAM's process group, and to those who have left it and have no other parent; what is left after
GRACE_SECONDS is killed. When PROGRAM ends by itself, what is left of its processes is killed at once. What the command
prints goes to the warden's standard error.

On standard output are lines of a word and a number: `started` with the process group, when PROGRAM runs (where it
cannot, the script ends without a line); at the end, `exited` with its code or `signalled` with the signal's number, and
`left` where processes could not be killed within ten seconds.

A command's processes are those that come from PROGRAM, whatever group or session they moved to: Linux gives the
orphans among them to the warden (PR_SET_CHILD_SUBREAPER). None of them can become another user by a file's set-user-id
(PR_SET_NO_NEW_PRIVS), so all can be killed. If the warden itself is killed, Linux kills PROGRAM (PR_SET_PDEATHSIG).

It is a script of its own, with the standard library only, so that nothing of the parent's threads and locks is forked.
"""

import ctypes
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 36, 38
KILL_SECONDS = 10.0
AGAIN_SECONDS = 0.01
CANNOT_RUN = 127
TIE, REPORT, OUTPUT = 0, 1, 2


def _set(libc: ctypes.CDLL, option: int, value: int) -> None:
    if libc.prctl(option, value, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _say(word: str, number: int) -> None:
    with suppress(OSError):  # a parent that is gone: all the more is to be done
        os.write(REPORT, f"{word} {number}\n".encode())


def _become_command(libc: ctypes.CDLL, command: Sequence[str], warden: int, failed: int) -> NoReturn:
    try:
        os.setsid()
        # An ignored signal stays so over an exec: ours, and those that Python ignores.
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        os.dup2(os.open(os.devnull, os.O_RDONLY), TIE)
        os.dup2(OUTPUT, REPORT)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        _set(libc, PR_SET_NO_NEW_PRIVS, 1)
        _set(libc, PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == warden:  # else it died before the line above could take effect
            os.execv(command[0], list(command))  # noqa: S606 - to run what it is told is what it is for
    finally:
        os.write(failed, b"!")
        os._exit(CANNOT_RUN)


def _start(libc: ctypes.CDLL, command: Sequence[str]) -> int | None:
    """Fork, and return when the command runs, in a session and a group of its own: only then can they be signalled.

    None where it cannot run.
    """
    warden = os.getpid()
    heard, failed = os.pipe()  # closed by the exec
    main = os.fork()
    if main == 0:
        _become_command(libc, command, warden, failed)
    os.close(failed)
    return None if os.read(heard, 1) else main


def _children() -> list[int]:
    """Ours by birth or by adoption. Who ends amid the reading may hide another: an empty list proves nothing."""
    with open("/proc/thread-self/children") as file:
        return [int(pid) for pid in file.read().split()]


def _has_ended(main: int) -> bool:
    """Whether it has; it is not reaped, so that no other process gets its number and its group's. Dead orphans are."""
    for pid in _children():
        if pid != main:
            os.waitpid(pid, os.WNOHANG)
    return os.waitid(os.P_PID, main, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _pause(wake: int, seconds: float | None, *, tied: bool) -> bool:
    """Sleep until a child ends, a stop is wanted, or the time is over; says whether a stop is wanted."""
    ready, _, _ = select.select([wake, TIE] if tied else [wake], [], [], seconds)
    told = os.read(wake, 4096) if wake in ready else b""
    return TIE in ready or signal.SIGTERM in told


def _watch(main: int, grace_seconds: float, wake: int) -> None:
    """Until it has ended, or was told to stop and had its time to."""
    is_wanted = True
    while is_wanted and not _has_ended(main):
        is_wanted = not _pause(wake, None, tied=True)
    if is_wanted:
        return
    os.killpg(main, signal.SIGTERM)
    asked: set[int] = set()
    deadline = time.monotonic() + grace_seconds
    while (left := deadline - time.monotonic()) > 0 and not (_has_ended(main) and _children() == [main]):
        strays = {pid for pid in _children() if os.getpgid(pid) != main}
        for pid in strays - asked:
            os.kill(pid, signal.SIGTERM)
        asked = strays
        _pause(wake, left, tied=False)


def _kill_all(main: int, wake: int) -> None:
    """Kill what is left, level by level: children of who is killed become ours. Says how the command ended."""
    os.killpg(main, signal.SIGKILL)  # at a blow: nobody in the group forks out of it
    deadline = time.monotonic() + KILL_SECONDS
    while time.monotonic() < deadline:
        try:
            while (reaped := os.waitpid(-1, os.WNOHANG))[0]:
                if reaped[0] == main:
                    code = os.waitstatus_to_exitcode(reaped[1])
                    _say("exited" if code >= 0 else "signalled", abs(code))
        except ChildProcessError:
            return
        for pid in _children():
            with suppress(PermissionError):
                os.kill(pid, signal.SIGKILL)
        _pause(wake, AGAIN_SECONDS, tied=False)
    _say("left", len(_children()))


def keep(grace_seconds: float, command: Sequence[str]) -> None:
    """Run the command to its end, or to the parent's. See the module's docstring."""
    wake, waker = os.pipe()
    for descriptor in (wake, waker):
        os.set_blocking(descriptor, False)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, lambda *_: None)  # only so that it reaches the wake-up descriptor
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    libc = ctypes.CDLL(None, use_errno=True)
    _set(libc, PR_SET_CHILD_SUBREAPER, 1)
    if not os.read(TIE, 1):
        return
    main = _start(libc, command)
    if main is None:
        return
    try:
        _say("started", main)
        _watch(main, grace_seconds, wake)
    finally:
        _kill_all(main, wake)


if __name__ == "__main__":
    keep(float(sys.argv[2]), sys.argv[3:])
