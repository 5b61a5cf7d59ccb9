"""As whom Postgres runs: root in both ways and between them, root without namespaces, an ordinary user."""

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from service.adapters.embedded import StoreUrls, embedded_stores
from service.adapters.embedded.privileges import (
    NOBODY,
    Privileges,
    detect_privileges,
    give,
    other_user,
    same_user,
    user_namespace,
    why_not,
)
from service.model.errors import ConfigurationError
from tests.adapters.embedded.foreign import Serve, Serving, needs_root, pid_in
from tests.adapters.embedded.test_stores import find_the_mark, leave_a_mark

REPOSITORY = Path(__file__).parents[3]
NAMELESS = 12345  # has no entry in /etc/passwd
SERVE = ("-m", "tests.adapters.embedded.serve")
ENVIRONMENT = {
    "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry.endswith("site-packages")),
    "PYTHONDONTWRITEBYTECODE": "1",
    "PATH": f"{os.defpath}:/usr/sbin:/sbin",
}


def uid_of(pid: int) -> int:
    (line,) = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("Uid:"))
    return int(line.split()[1])


@needs_root
async def test_each_way_of_root_takes_over_what_the_other_made(tmp_path: Path) -> None:
    """Below pytest's folder, which is 0700 and root's: uid 65534 could not get there by itself."""
    if await why_not(user_namespace(), []):
        pytest.skip("no user namespaces here")
    ways = [other_user(), user_namespace(), other_user()]
    for turn, way in enumerate(ways):

        async def detect(_: Sequence[Path], way: Privileges = way) -> Privileges:
            return way

        async with embedded_stores(tmp_path / "data", detect=detect) as urls:
            if turn == 0:
                await leave_a_mark(urls)
            assert await find_the_mark(urls) == ("kept", "kept")
            assert uid_of(pid_in(tmp_path / "data" / "postgres.pid")) == way.uid
            assert (tmp_path / "data" / "postgres").stat().st_uid == way.uid


def chrooted(root: Path, inside: str, python: str) -> tuple[str, ...]:
    """The command that serves the stores in a chroot, where the kernel refuses user namespaces."""
    tools = [shutil.which(name) for name in ("unshare", "mount", "chroot", "setpriv")]
    if not all(tools) or subprocess.run(["unshare", "-m", "true"]).returncode != 0:
        pytest.skip("needs unshare, mount, chroot and setpriv, and the right to use them")
    root.mkdir()
    script = (
        f'mount --rbind / {root} && exec chroot {root} sh -c \'cd {REPOSITORY} && exec setpriv {inside} "$@"\' sh "$@"'
    )
    return ("unshare", "-m", "sh", "-c", script, "sh", python, *SERVE)


@needs_root
async def test_where_namespaces_are_refused_root_runs_postgres_as_nobody(tmp_path: Path, serve: Serve) -> None:
    """For real, and with no more capabilities than a default container has."""
    container = "--bounding-set -sys_admin,-sys_ptrace,-dac_read_search"
    data = tmp_path / "data"
    serving = await serve(data, command=chrooted(tmp_path / "root", container, sys.executable))
    await leave_a_mark(StoreUrls(**serving.says))
    assert uid_of(serving.pids["postgres"]) == NOBODY
    assert await serving.leave() == 0
    async with embedded_stores(data) as urls:
        assert await find_the_mark(urls) == ("kept", "kept")


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A folder that everybody reaches."""
    folder = Path(tempfile.mkdtemp(prefix="playhead-test-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def ordinary_python(reachable: Path) -> str:
    """A Python that every user can run, with our packages: the one of the tests may lie below /root."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for program in (sys.executable, f"/usr/local/bin/{version}", f"/usr/bin/{version}"):
        imports = (program, "-c", "import tests.adapters.embedded.serve")
        try:
            tried = subprocess.run(imports, user=NAMELESS, cwd=REPOSITORY, env=ENVIRONMENT, capture_output=True)
        except OSError:
            continue
        if tried.returncode == 0:
            return program
    pytest.skip(f"no {version} with these packages that an ordinary user can run")


@needs_root
@pytest.mark.parametrize("uid", [pwd.getpwnam("daemon").pw_uid, NAMELESS])
async def test_an_ordinary_user_needs_nothing_and_is_refused_what_is_roots(
    reachable: Path, ordinary_python: str, serve: Serve, uid: int
) -> None:
    os.chown(reachable, uid, uid)

    async def serve_ordinary(data: Path) -> Serving:
        command = (ordinary_python, *SERVE)
        return await serve(data, command=command, environment=ENVIRONMENT, user=uid, group=uid, extra_groups=[])

    serving = await serve_ordinary(reachable / "data")
    await leave_a_mark(StoreUrls(**serving.says))
    assert {uid_of(pid) for pid in serving.pids.values()} == {uid}
    assert await serving.leave() == 0
    async with embedded_stores(reachable / "data") as urls:  # root comes, and takes it over
        assert await find_the_mark(urls) == ("kept", "kept")
    refused = await serve_ordinary(reachable / "data")
    assert refused.says["error"].startswith(f"PLAYHEAD_DATA_DIR: {reachable}/data")
    (reachable / "sealed").mkdir(mode=0o555)
    refused = await serve_ordinary(reachable / "sealed")
    assert refused.says["error"] == f"PLAYHEAD_DATA_DIR: {reachable}/sealed cannot be written: Permission denied"


@needs_root
async def test_a_user_without_a_name_and_without_namespaces_is_told_so(
    tmp_path: Path, reachable: Path, ordinary_python: str, serve: Serve
) -> None:
    os.chown(reachable, NAMELESS, NAMELESS)
    inside = f"--reuid {NAMELESS} --regid {NAMELESS} --clear-groups"
    command = chrooted(tmp_path / "root", inside, ordinary_python)
    refused = await serve(reachable / "data", command=command, environment=ENVIRONMENT)
    assert refused.says["error"].startswith(f"uid {NAMELESS} has no name in /etc/passwd")
    assert "unshare: Operation not permitted" in refused.says["error"]


@needs_root
async def test_a_folder_that_the_namespaces_root_cannot_reach_leads_to_the_other_way(reachable: Path) -> None:
    os.chown(reachable, NAMELESS, NAMELESS)
    os.chmod(reachable, 0o700)
    # It is somebody's, and 0700: root passes it, but not the root of a namespace of its own.
    assert "Permission denied" in await why_not(user_namespace(), [reachable])
    assert await detect_privileges([reachable]) == other_user()


@needs_root
async def test_nobody_can_run_a_program_below_a_folder_that_is_roots_alone(tmp_path: Path) -> None:
    (program := tmp_path / "program").touch(mode=0o755)
    os.chmod(tmp_path, 0o700)
    assert not await why_not(other_user(), [program, tmp_path])
    os.chmod(program, 0o644)
    assert await why_not(other_user(), [program]) == f"{program}: Permission denied"


@needs_root
async def test_when_no_way_works_both_reasons_are_given(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigurationError, match=r"neither a user namespace \(.*/none: No such.*\) nor the user nobody \("
    ) as error:
        await detect_privileges([tmp_path / "none"])
    assert "PLAYHEAD_POSTGRES_URL" in str(error.value)


@needs_root
def test_a_change_of_owner_reaches_all_and_follows_no_link(tmp_path: Path) -> None:
    (outside := tmp_path / "outside").touch()
    (inner := tmp_path / "db" / "base").mkdir(parents=True)
    (inner / "link").symlink_to(outside)
    give(tmp_path / "db", other_user())
    owners = {path.lstat().st_uid for path in (tmp_path / "db", inner, inner / "link")}
    assert (owners, outside.stat().st_uid) == ({NOBODY}, 0)


def test_what_is_ours_is_left_as_it_is(tmp_path: Path) -> None:
    give(tmp_path, same_user())
