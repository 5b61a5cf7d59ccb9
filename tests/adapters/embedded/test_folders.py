"""The folder of the sockets: short, private, and ours."""

import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.adapters.embedded.folders import Folders, open_folders, private_sockets
from service.model.errors import ConfigurationError
from tests.adapters.embedded.foreign import needs_root


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A temp folder in which somebody else can have been first; `tmp_path` may be too long for sockets."""
    with tempfile.TemporaryDirectory(prefix="playhead-") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)


@pytest.fixture
def folders(tmp_path: Path, shared: Path) -> Folders:
    return open_folders(tmp_path / "data")


def test_the_name_follows_from_the_user_and_the_data_folder(tmp_path: Path, folders: Folders) -> None:
    assert folders.sockets.name.startswith(f"playhead-{os.geteuid()}-")
    (tmp_path / "link").symlink_to(tmp_path / "data")
    assert open_folders(tmp_path / "link") == folders
    assert open_folders(tmp_path / "other").sockets != folders.sockets


@needs_root
def test_a_folder_that_somebody_else_made_is_refused(folders: Folders) -> None:
    folders.sockets.mkdir(mode=0o700)
    os.chown(folders.sockets, 12345, 12345)
    with pytest.raises(ConfigurationError, match=f"{folders.sockets} belongs to uid 12345"), private_sockets(folders):
        pass


def test_a_link_in_its_place_is_refused(tmp_path: Path, folders: Folders) -> None:
    (tmp_path / "mine").mkdir()
    folders.sockets.symlink_to(tmp_path / "mine")
    with pytest.raises(ConfigurationError, match="is not a folder"), private_sockets(folders):
        pass


def test_a_folder_of_ours_that_is_open_to_others_is_closed(folders: Folders) -> None:
    folders.sockets.mkdir()
    folders.sockets.chmod(0o777)
    with private_sockets(folders):
        assert stat.S_IMODE(folders.sockets.stat().st_mode) == 0o700


def test_a_path_that_is_too_long_for_a_socket_names_the_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / ("x" * 100)))
    with pytest.raises(ConfigurationError, match=r"^TMPDIR: .* 103 is the limit"):
        open_folders(tmp_path / "data")


def test_the_sockets_go_and_what_is_not_ours_stays(folders: Folders) -> None:
    folders.sockets.mkdir()
    folders.valkey_socket.touch()
    with private_sockets(folders):
        assert not folders.valkey_socket.exists()
        (folders.sockets / "other").touch()
        folders.postgres_socket.touch()
    assert [entry.name for entry in folders.sockets.iterdir()] == ["other"]
    (folders.sockets / "other").unlink()
    with private_sockets(folders):
        pass
    assert not folders.sockets.exists()


def test_a_temp_folder_whose_name_is_no_utf_8_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clients take their sockets' paths out of URLs, which have no other bytes."""
    monkeypatch.setattr(tempfile, "tempdir", os.fsdecode(b"/tmp/\xff"))
    with pytest.raises(ConfigurationError, match=r"^TMPDIR: ") as raised:
        open_folders(tmp_path / "data")
    assert str(raised.value).isprintable()
