import pytest

from bsa_lightning.errors import UserError
from bsa_lightning.files import make_folder, whole


def test_a_folder_where_none_can_be_is_said_in_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    message = f"^{tmp_path / 'file' / 'run'} cannot be made \\(Not a directory\\); name another folder$"
    with pytest.raises(UserError, match=message):
        make_folder(tmp_path / "file" / "run")
    with pytest.raises(UserError, match=message), whole(tmp_path / "file" / "run" / "x.wav"):
        pytest.fail("there is nothing to write to")


def test_an_error_leaves_what_was_there(tmp_path):
    path = tmp_path / "scores.json"
    path.write_text("old")
    with pytest.raises(UnicodeEncodeError), whole(path) as partial:
        partial.write_text("half\udc80", encoding="utf-8")
    assert [found.read_text() for found in tmp_path.iterdir()] == ["old"]
