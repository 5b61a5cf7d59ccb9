"""A script that keeps one server running for a parent, and stops it when that parent is gone.

    python -I -S keeper.py run IDENTITY STOP_SIGNAL STOP_SECONDS PID_FILE COMMAND...
    python -I -S keeper.py probe IDENTITY PATH...

`run` starts COMMAND, writes its pid to PID_FILE, and exits with its exit code (128 + n after signal n). Standard input
is the tie to the parent: its end, which the kernel delivers even when the parent was killed with SIGKILL, makes the
keeper send STOP_SIGNAL, and SIGKILL after STOP_SECONDS. SIGTERM to the keeper does the same. If the keeper itself is
killed, Linux sends STOP_SIGNAL to the server (PR_SET_PDEATHSIG; other systems have nothing like it: there the server
stays until the next start on that data folder stops it). Descriptors that the keeper inherits, the server inherits too:
the lock of the data folder, and a pipe whose end tells the parent that the last of them is gone.

`probe` becomes IDENTITY and reaches for every PATH; it exits with 0, or with 1 and one line that says what failed.

IDENTITY says as whom the command runs: `same`; `namespace:N`, in a user namespace where we look like user N to
ourselves; `uid:N`, as root who becomes user N, but still able to pass every folder.

It is a script of its own, with the standard library only, so that nothing of the parent's threads and locks is forked.
"""

import ctypes
import errno
import os
import select
import signal
import stat
import sys
import time
from collections.abc import Sequence
from typing import NoReturn

CLONE_NEWUSER = 0x10000000
PR_SET_PDEATHSIG, PR_SET_KEEPCAPS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE = 1, 8, 47, 2
PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP = 28, 4
CAP_DAC_OVERRIDE = 1
CAPABILITY_VERSION_3 = 0x20080522
CANNOT_RUN = 127
STOPS = (signal.SIGTERM, signal.SIGINT)


def _check(result: int, call: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")


def _enter_namespace(libc: ctypes.CDLL, seen_uid: int) -> None:
    uid, gid = os.geteuid(), os.getegid()
    _check(libc.unshare(CLONE_NEWUSER), "unshare")
    for name, text in (("setgroups", "deny"), ("uid_map", f"{seen_uid} {uid} 1"), ("gid_map", f"{seen_uid} {gid} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def _become(libc: ctypes.CDLL, uid: int) -> None:
    """Change to `uid`, keeping one capability of root: to pass folders (`/root`, a 0700 parent) that are not `uid`'s.

    Postgres asks only for another uid than 0. Without the capability it could reach neither a data folder below
    `/root` nor the private folder of the sockets.
    """
    os.setgroups([])
    # Without this bit access(2), with which initdb looks for its neighbour, would leave the capability out. Not every
    # root may set it; then the probe finds out whether it is missed.
    libc.prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0, 0)
    _check(libc.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0), "prctl")
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    kept = 1 << CAP_DAC_OVERRIDE
    sets = (ctypes.c_uint32 * 6)(kept, kept, kept, 0, 0, 0)  # effective, permitted, inheritable; then their high halves
    _check(libc.capset(ctypes.byref(header), ctypes.byref(sets)), "capset")
    _check(libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_DAC_OVERRIDE, 0, 0), "prctl")


def take_identity(identity: str) -> None:
    """Become `identity`, for good. Raises OSError where the system refuses."""
    if identity == "same":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    way, _, uid = identity.partition(":")
    if way == "namespace":
        _enter_namespace(libc, int(uid))
    else:
        _become(libc, int(uid))


def _die_with(keeper_pid: int, stop_signal: int) -> None:
    """Have the kernel stop this process when the keeper dies. Last, since a change of identity would undo it."""
    if sys.platform == "linux":
        _check(ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, stop_signal, 0, 0, 0), "prctl")
    if os.getppid() != keeper_pid:  # it died before the line above could take effect
        os._exit(CANNOT_RUN)


def _become_server(identity: str, stop_signal: int, command: Sequence[str], keeper_pid: int) -> NoReturn:
    try:
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE, signal.SIGTERM, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # the parent's end is not the server's to read
        take_identity(identity)
        _die_with(keeper_pid, stop_signal)
        os.execv(command[0], list(command))  # noqa: S606 - the parent chose the command; there is no shell to fear
    except OSError as error:
        os.write(2, f"error: cannot run {command[0]}: {error}\n".encode())
    finally:
        os._exit(CANNOT_RUN)


def _wait(server: int, seconds: float | None, wake: int, *, parent: bool) -> int | None:
    """The exit code of the server, or None when `seconds` passed, or when `parent` is watched and wants a stop."""
    deadline = None if seconds is None else time.monotonic() + seconds
    while True:
        pid, status = os.waitpid(server, os.WNOHANG)
        if pid:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            return None
        ready, _, _ = select.select([wake, 0] if parent else [wake], [], [], left)
        if wake in ready and signal.SIGTERM in os.read(wake, 64) and parent:
            return None
        if 0 in ready and _ended(0):
            return None


def _ended(descriptor: int) -> bool:
    try:
        return not os.read(descriptor, 64)
    except OSError:
        return True


def _write_pid(path: str, pid: int) -> None:
    with open(path + ".new", "w") as file:
        file.write(f"{pid}\n")
    os.replace(path + ".new", path)  # a reader never sees half a number


def run(identity: str, stop_signal: int, stop_seconds: float, pid_file: str, command: Sequence[str]) -> int:
    """Run the command until it ends or the parent is gone; returns its exit code. See the module's docstring."""
    wake, waker = os.pipe()
    for descriptor in (wake, waker):
        os.set_blocking(descriptor, False)
    signal.set_wakeup_fd(waker)
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, lambda *_: None)  # only so that it reaches the wake-up descriptor
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    keeper_pid = os.getpid()
    # Held back over the fork: the child has our handlers at first, and they would swallow a stop.
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    server = os.fork()
    if server == 0:
        _become_server(identity, stop_signal, command, keeper_pid)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
    try:
        _write_pid(pid_file, server)
        code = _wait(server, None, wake, parent=True)
        if code is None:
            os.kill(server, stop_signal)
            code = _wait(server, stop_seconds, wake, parent=False)
        if code is None:
            os.kill(server, signal.SIGKILL)
            code = _wait(server, None, wake, parent=False)
    finally:
        if os.path.exists(pid_file):
            os.unlink(pid_file)
    return code or 0


def _reach(path: str) -> None:
    if stat.S_ISDIR(os.stat(path).st_mode):
        os.stat(os.path.join(path, "."))
    elif not os.access(path, os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)


def probe(identity: str, paths: Sequence[str]) -> int:
    """Whether this identity can be taken and reaches the paths: 0 or 1, with the reason on standard output."""
    try:
        take_identity(identity)
        for path in paths:
            _reach(path)
    except OSError as error:
        print(f"{error.filename}: {error.strerror}" if error.filename else error.strerror)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    if sys.argv[1] == "probe":
        sys.exit(probe(sys.argv[2], sys.argv[3:]))
    sys.exit(run(sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), sys.argv[5], sys.argv[6:]))
