from pathlib import Path

import pytest

from bsa_lightning.cli.call import call
from bsa_lightning.common.errors import UserError
from bsa_lightning.diffusion.weighting import BSA, Weighting


def weigh(names: list[str], weighting: Weighting, num_times: int = 1, out: Path = Path("out")) -> tuple:
    """Gives back its arguments.

    Args:
        names: several words.
        weighting: a class by name.
        num_times: a number.
        out: a folder.
    """
    return names, weighting, num_times, out


def test_words_options_and_classes_arrive():
    names, weighting, num_times, out = call(
        weigh, ["weigh", "a", "b c", "--weighting", "BSA", "--weighting.gamma", "3", "--num-times=2"], several="names"
    )
    assert (names, num_times, out) == (["a", "b c"], 2, Path("out"))
    assert isinstance(weighting, BSA)
    assert weighting.gamma == 3


def test_config_files_hold_options(tmp_path):
    (tmp_path / "c.yaml").write_text("weighting: BSA\nnum_times: 4\n")
    words = ["weigh", "a", "--config", str(tmp_path / "c.yaml"), "--num_times", "5"]
    assert call(weigh, words, several="names")[2] == 5


def test_unknown_option_is_answered_with_the_nearest():
    with pytest.raises(UserError, match="no option --num_tmes, did you mean --num_times"):
        call(weigh, ["weigh", "a", "--weighting", "BSA", "--num_tmes", "x"], several="names")


def wait(name: str, seconds: int = 1, out: Path = Path("out")) -> tuple:
    """Gives back its arguments.

    Args:
        name: a word.
        seconds: a number.
        out: a folder.
    """
    return name, seconds, out


@pytest.mark.parametrize("word", ["${name}", "${seconds}", "{a: b}", "null", "a: b", "$x"])
def test_words_are_what_they_are(word):
    assert call(weigh, ["weigh", word, "--weighting", "BSA", "--", "--config"], several="names")[0] == [
        word,
        "--config",
    ]
    assert call(wait, ["wait", word, "--out", f"w/{word}"], positional=True) == (word, 1, Path(f"w/{word}"))


def test_a_file_may_refer_to_other_settings(tmp_path):
    (tmp_path / "c.yaml").write_text("name: a\nout: w/${name}\n")
    assert call(wait, ["wait", "--config", str(tmp_path / "c.yaml"), "b"], positional=True) == ("b", 1, Path("w/b"))


@pytest.mark.parametrize("words", [("a", "--out", ""), ("a", "--out="), ("",)])
def test_what_a_variable_that_is_not_set_gives_is_refused(words):
    with pytest.raises(UserError, match="is empty; give it a value, or leave it out"):
        call(wait, ["wait", *words], positional=True)
