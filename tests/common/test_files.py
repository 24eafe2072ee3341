import os
import subprocess
import sys

import pytest

from bsa_lightning.common.errors import UserError
from bsa_lightning.common.files import atomic_write, make_folder, remove_partial
from bsa_lightning.common.locks import LOCK, locked


def test_a_folder_where_none_can_be_is_said_in_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    message = f"^{tmp_path / 'file' / 'run'} cannot be made \\(Not a directory\\); name another folder$"
    with pytest.raises(UserError, match=message):
        make_folder(tmp_path / "file" / "run")
    with pytest.raises(UserError, match=message), atomic_write(tmp_path / "file" / "run" / "x.wav"):
        pytest.fail("there is nothing to write to")


def test_an_error_leaves_what_was_there(tmp_path):
    path = tmp_path / "scores.json"
    path.write_text("old")
    with pytest.raises(UnicodeEncodeError), atomic_write(path) as partial:
        partial.write_text("half\udc80", encoding="utf-8")
    assert [found.read_text() for found in tmp_path.iterdir()] == ["old"]


@pytest.mark.parametrize("kinds", [("file", "folder"), ("folder", "file")])
def test_a_file_never_replaces_a_folder_nor_the_other_way_round(tmp_path, kinds):
    make = {"file": lambda path: path.write_text("x"), "folder": lambda path: (path.mkdir(), (path / "x").touch())}
    path = tmp_path / "there"
    make[kinds[0]](path)
    before = sorted(tmp_path.rglob("*"))
    with (
        pytest.raises(UserError, match=f"is a {kinds[0]}, which a {kinds[1]} cannot replace"),
        atomic_write(path) as partial,
    ):
        make[kinds[1]](partial)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("kind", ["partial", "old"])
def test_what_a_killed_process_left_goes_with_the_next_write_there(tmp_path, kind):
    with atomic_write(tmp_path / "first") as partial:
        ours = partial.name
        partial.touch()
    dead = ours.replace("partial", kind).replace(f"-{os.getpid()}-", f"-{DEAD}-")
    alive = ours.replace(f"-{os.getpid()}-", f"-{os.getppid()}-")
    elsewhere = ".x.partial-01234567-1-89abcdef"
    (tmp_path / "other" / dead / "unet").mkdir(parents=True)
    for name in (alive, elsewhere, ".mine.partial", ".bashrc.old-2023"):
        (tmp_path / "other" / name).touch()
    with atomic_write(tmp_path / "other" / "second") as partial:
        partial.touch()
    assert {path.name for path in (tmp_path / "other").iterdir()} == {
        "second",
        alive,
        elsewhere,
        ".mine.partial",
        ".bashrc.old-2023",
    }


def test_a_partial_file_of_another_machine_is_dead_when_it_is_old_or_its_folder_is_locked(tmp_path):
    for name in ("old", "locked"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / ".x.partial-01234567-1-89abcdef").touch()
    os.utime(tmp_path / "old" / ".x.partial-01234567-1-89abcdef", (0, 0))
    with atomic_write(tmp_path / "old" / "y") as partial:
        partial.touch()
    remove_partial(tmp_path / "locked")
    assert [path.name for path in tmp_path.glob("*/*")] == ["y"]


def test_a_name_of_the_greatest_length_can_be_written(tmp_path):
    path = tmp_path / f"{'é' * 125}.json"
    with atomic_write(path) as partial:
        partial.write_text("x")
    assert path.read_text() == "x"


@pytest.fixture
def held(tmp_path):
    """A folder whose lock another process holds until it is told to end."""
    folder = tmp_path / "held"
    code = (
        "import sys; from pathlib import Path; from bsa_lightning.common.locks import locked\n"
        "with locked(Path(sys.argv[1]), busy=''): print(flush=True); input()"
    )
    other = subprocess.Popen([sys.executable, "-c", code, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    other.stdout.readline()
    yield folder, other
    other.communicate(b"\n")


def test_a_locked_folder_is_refused_until_its_process_has_ended(held):
    folder, other = held
    with pytest.raises(UserError, match="it is taken"), locked(folder, wait=0.1, busy="it is taken"):
        pytest.fail("two have it")
    other.kill()
    other.wait()
    with locked(folder, wait=5, busy="in use"):
        assert [path.name for path in folder.iterdir()] == [LOCK]
    assert not list(folder.iterdir())


def test_a_lock_leaves_the_folder_that_it_was_for(tmp_path):
    (tmp_path / "there").mkdir()
    with locked(tmp_path / "there", busy=""), locked(tmp_path / "a" / "b", busy=""):
        (tmp_path / "a" / "b" / "x").touch()
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == ["a", "a/b", "a/b/x", "there"]


DEAD = 2**22 + 1  # above the greatest number of a process
