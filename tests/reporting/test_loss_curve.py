import pytest

from bsa_lightning.common.errors import UserError
from bsa_lightning.reporting.loss_curve import panel, read_curves


def write(run, losses):
    run.mkdir()
    rows = "".join(f"{10 * i + 9},{loss}\n" for i, loss in enumerate(losses))
    (run / "metrics.csv").write_text(f"step,train/loss\n{rows}")
    return run


def test_a_curve_has_the_updates_and_losses_that_were_logged(tmp_path):
    first = write(tmp_path / "a", [0.4, "", "nan", 0.2])
    (curve,) = read_curves([first, write(tmp_path / "b", [0.3]), tmp_path])
    assert (curve.run, curve.steps, curve.losses) == ("a", (10, 40), (0.4, 0.2))
    assert "Training loss" in panel([curve])


def test_a_long_curve_is_averaged_over_stretches(tmp_path):
    (curve,) = read_curves([write(tmp_path / "a", [1.0, 3.0] * 400)])
    assert len(curve.steps) == 400
    assert set(curve.losses) == {2.0}
    assert curve.steps[:2] == (15, 35)


def test_a_cell_that_is_no_number_is_named(tmp_path):
    with pytest.raises(UserError, match=r"line 3 has 'much' as its train/loss, which is not a number"):
        read_curves([write(tmp_path / "a", [0.1, "much"])])
