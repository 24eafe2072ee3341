"""What a study takes for done, and which failures it goes on after."""

import pytest

from experiments.study import study as studies
from experiments.study.run import Run
from experiments.study.study import Study

TUNING = Run("rates", "bsa-1e-4", 100, ("--model.weighting", "BSA"), scored=False)
MAIN = Run("weightings", "bsa", 0, ("--model.weighting", "BSA"))


def ended(study, run, code, said):
    """A study whose command has ended a run so."""

    def command(words, log):
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(f"epoch 1\nerror: {said}\n")
        (run.folder(study.root) / "checkpoints").mkdir(parents=True, exist_ok=True)
        return code

    study.lightning = command
    return study


@pytest.mark.parametrize("said", ["5 updates had no usable gradient in round 1", "made weights that are not finite"])
def test_a_rate_at_which_training_diverges_is_done(tmp_path, said):
    study = ended(Study(1, tmp_path), TUNING, studies.REFUSED, said)
    study.run(TUNING)
    assert study.is_done(TUNING)


@pytest.mark.parametrize(
    ("run", "code", "said"),
    [
        (TUNING, studies.REFUSED, "run is runs/x, where another process is at work"),
        (TUNING, studies.REFUSED, "no space is left on the device"),
        (TUNING, 1, "5 updates had no usable gradient in round 1"),
        (MAIN, studies.REFUSED, "5 updates had no usable gradient in round 1"),
    ],
)
def test_any_other_failure_ends_the_study(tmp_path, run, code, said):
    study = ended(Study(1, tmp_path), run, code, said)
    with pytest.raises(SystemExit, match=said):
        study.run(run)
    assert not study.is_done(run)
    assert (run.folder(tmp_path) / "checkpoints").is_dir()


def test_what_was_done_with_other_options_is_not_taken_for_the_same(tmp_path):
    study = ended(Study(1, tmp_path), MAIN, 0, "whole")
    study.run(MAIN)
    assert study.is_done(MAIN)
    with pytest.raises(SystemExit, match=r"was run with the options .--model.weighting BSA.; move it out of"):
        study.is_done(Run("weightings", "bsa", 0, ("--model.weighting", "MinSNR")))
