import csv

import pytest
from lightning.pytorch import Trainer

from bsa_lightning.common.errors import UserError
from bsa_lightning.training.metrics_file import MetricsFile


def rows(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_rows_are_on_disk_at_once_and_columns_grow(tmp_path):
    logger = MetricsFile(tmp_path)
    logger.log_metrics({"loss": 1.0}, step=0)
    logger.log_metrics({"error": 2.0}, step=1)
    assert rows(tmp_path) == [
        {"step": "0", "loss": "1.0", "error": ""},
        {"step": "1", "loss": "", "error": "2.0"},
    ]


def test_a_resumed_fit_cuts_off_what_it_does_again(tmp_path):
    first = MetricsFile(tmp_path)
    first.log_metrics({"loss": 1.0}, step=0)
    position = first.position()
    first.log_metrics({"loss": 1.0, "error": 2.0}, step=10)
    untouched = (tmp_path / "metrics.csv").read_bytes()
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write("20,1.0,2")  # killed in the middle of a row
    second = MetricsFile(tmp_path)
    assert second.rewind(position) == 1
    assert rows(tmp_path) == [{"step": "0", "loss": "1.0"}]
    second.log_metrics({"loss": 1.0, "error": 2.0}, step=10)
    assert (tmp_path / "metrics.csv").read_bytes() == untouched


def test_lightnings_checkpoints_are_beside_the_runs_own(tmp_path):
    trainer = Trainer(accelerator="cpu", logger=MetricsFile(tmp_path), default_root_dir=tmp_path)
    trainer.strategy.broadcast = lambda path: path
    checkpoint = trainer.checkpoint_callback
    assert checkpoint._ModelCheckpoint__resolve_ckpt_dir(trainer) == str(tmp_path / "checkpoints")


def test_another_process_carries_on(tmp_path):
    for step in (0, 10):
        MetricsFile(tmp_path).log_metrics({"loss": 1.0}, step=step)
    assert [row["step"] for row in rows(tmp_path)] == ["0", "10"]


@pytest.mark.parametrize("text", ["", "step\n0\n", None])
def test_rows_that_are_lost_are_said_and_not_left_out(tmp_path, text):
    file = MetricsFile(tmp_path)
    for step in range(3):
        file.log_metrics({"loss": 1.0}, step)
    position = file.position()
    (tmp_path / "metrics.csv").unlink()
    if text is not None:
        (tmp_path / "metrics.csv").write_text(text)
    with pytest.raises(UserError, match=r"has [01] rows, but had 3 at the checkpoint; bring the whole file back"):
        MetricsFile(tmp_path).rewind(position)
