from pathlib import Path

import pytest

from bsa_lightning.commands.call import call
from bsa_lightning.diffusion.weighting import BSA, Weighting
from bsa_lightning.errors import UserError


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
