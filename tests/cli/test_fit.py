import csv
import os
import pickle
import resource
import sys

import pytest
import torch
import yaml
from toys import TOY_CONFIG

from bsa_lightning.cli import (
    classes,
    fit,  # imported here, since its log handlers must not hold a captured stream
)
from bsa_lightning.cli.main import main

PICKLE = pickle.dumps(print)


def flipped(data):
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


@pytest.fixture
def lightning(monkeypatch, capsys, tmp_path):
    """Runs a command with the toy configuration; gives exit code and stderr without Lightning's remarks."""
    # The classes that the toys need; the others take seconds to import.
    monkeypatch.setattr(classes, "MODULES", ("bsa_lightning.diffusion.weighting",))
    (tmp_path / "toy.yaml").write_text(TOY_CONFIG)

    def run(command, *words):
        words = [command, "--config", str(tmp_path / "toy.yaml"), "--run", str(tmp_path / "run"), *words]
        monkeypatch.setattr(sys, "argv", ["lightning", *words])
        code = main()
        return code, "\n".join(line for line in capsys.readouterr().err.splitlines() if line.startswith("lightning"))

    return run


@pytest.fixture
def run(tmp_path):
    return tmp_path / "run"


def steps(run):
    with (run / "metrics.csv").open(newline="") as file:
        return [int(row["step"]) for row in csv.DictReader(file) if row["train/loss"]]


def test_fit_leaves_a_whole_run_folder(lightning, run):
    assert lightning("fit") == (0, "")
    assert {path.name for path in run.iterdir()} == {"checkpoints", "config.yaml", "environment.json", "metrics.csv"}
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["last.ckpt"]
    assert steps(run) == [0, 1, 2, 3, 4, 5]


def test_the_recorded_configuration_is_resolved_and_can_be_run(lightning, run, tmp_path):
    lightning("fit", "--seed_everything", "7")
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["model"]["init_args"]["seed"] == config["data"]["init_args"]["seed"] == 7
    assert config["model"]["init_args"]["weighting"]["class_path"] == "bsa_lightning.BSA"
    assert config["trainer"]["use_distributed_sampler"] is False
    again = tmp_path / "again"
    assert lightning("fit", "--config", str(run / "config.yaml"), "--run", str(again)) == (0, "")
    assert yaml.safe_load((again / "config.yaml").read_text()) == {**config, "run": str(again)}


def test_resume_goes_on_where_the_checkpoint_is(lightning, run):
    lightning("fit", "--trainer.max_steps", "5")
    assert lightning("fit", "--ckpt_path", "last") == (0, "")
    assert steps(run) == [0, 1, 2, 3, 4, 5]


def test_a_finished_run_ends_with_its_last_checkpoint_and_has_nothing_to_go_on_with(lightning, run):
    lightning("fit")
    last = run / "checkpoints" / "last.ckpt"
    assert torch.load(last, weights_only=True)["global_step"] == 6
    before = (run / "metrics.csv").read_bytes()
    assert lightning("fit", "--ckpt_path", "last") == (0, "")
    assert (run / "metrics.csv").read_bytes() == before


def test_validate_adds_nothing_to_the_run(lightning, run):
    lightning("fit")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert lightning("validate") == (0, "")
    other = ("--trainer.accumulate_grad_batches", "2", "--data.seed", "3")
    assert lightning("validate", *other) == (0, "")
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    assert lightning("fit", "--ckpt_path", "last", *other)[0] == 2


def test_a_second_fit_is_refused_and_damages_nothing(lightning, run):
    lightning("fit")
    before = (run / "metrics.csv").read_bytes()
    code, err = lightning("fit")
    assert code == 2
    assert "holds a run already" in err
    assert (run / "metrics.csv").read_bytes() == before


def test_overwrite_starts_anew(lightning, run):
    lightning("fit")
    assert lightning("fit", "--overwrite", "true", "--trainer.max_steps", "4") == (0, "")
    assert steps(run) == [0, 1, 2, 3]
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["last.ckpt"]


def test_test_keeps_what_fit_logged(lightning, run):
    lightning("fit")
    config = (run / "config.yaml").read_text()
    assert lightning("test", "--ckpt_path", "last") == (0, "")
    assert steps(run) == [0, 1, 2, 3, 4, 5]
    assert (run / "config.yaml").read_text() == config


def test_a_contradicting_resume_is_refused_with_every_key(lightning, run):
    lightning("fit")
    last = str(run / "checkpoints" / "last.ckpt")
    code, err = lightning("fit", "--ckpt_path", last, "--model.weighting", "SNR", "--trainer.gradient_clip_val", "1")
    assert code == 2
    assert "model.init_args.weighting.class_path is bsa_lightning.SNR" in err
    assert "trainer.gradient_clip_val is 1" in err
    code, err = lightning(
        *("fit", "--ckpt_path", last, "--model.width", "3"),
        *("--trainer.accumulate_grad_batches", "2", "--seed_everything", "1"),
    )
    assert code == 2
    for key in ("model.init_args.width is 3", "trainer.accumulate_grad_batches is 2", "seed_everything is 1"):
        assert key in err


def test_what_is_harmless_may_change(lightning, run):
    lightning("fit", "--trainer.max_steps", "5")
    words = ["--trainer.num_sanity_val_steps", "1", "--trainer.log_every_n_steps", "2", "--checkpoint_every", "3"]
    assert lightning("fit", "--ckpt_path", "last", *words) == (0, "")


def test_a_run_without_a_checkpoint_begins(lightning, run):
    assert lightning("fit", "--ckpt_path", "last") == (0, "")
    whole = (run / "metrics.csv").read_bytes()
    (run / "checkpoints" / "last.ckpt").unlink()
    (run / "metrics.csv").write_text("step\n")
    assert lightning("fit", "--ckpt_path", "last") == (0, "")
    assert (run / "metrics.csv").read_bytes() == whole


def test_a_run_that_lost_its_checkpoint_is_not_replaced(lightning, run):
    lightning("fit")
    (run / "checkpoints" / "last.ckpt").unlink()
    (run / "rounds").mkdir()
    code, err = lightning("fit", "--ckpt_path", "last")
    assert code == 2
    assert "has rounds and no checkpoint" in err


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda _: b"", flipped, lambda _: PICKLE])
def test_a_damaged_checkpoint_is_refused_and_nothing_in_it_runs(lightning, run, damage):
    lightning("fit")
    last = run / "checkpoints" / "last.ckpt"
    last.write_bytes(damage(last.read_bytes()))
    code, err = lightning("fit", "--ckpt_path", "last")
    assert code == 2
    assert "last.ckpt is damaged or not a checkpoint" in err


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("--model.weighting Schedulr", 'model.weighting: there is no class "Schedulr" (a dotted path'),
        (
            "--model.weighting nowhere.LogSNR",
            'model.weighting: there is no module "nowhere" where Python looks: in the',
        ),
        ("--model.weighting torch.LogSNR", 'model.weighting: there is no "LogSNR" in the module torch'),
        ("--model.weighting bsa_lightning.api.sample", "api.sample is no class of weightings; name a function as"),
        ("--model.weighting BSAA", 'model.weighting: there is no class "BSAA", did you mean BSA?'),
        ("--model.weighting.gamma -1", "gamma is -1.0, but must be a finite number, above 0"),
        ("--model.steps.num_steps 3", "num_steps is 3, which cannot be halved"),
        ("--model.width 0", "width is 0, but must be at least 1"),
        ("--model.width x", "model.width is x, but must be int"),
        ("--model.init_args.heigth 3", "there is no option --model.heigth; `--print_config` shows"),
        (
            "--model.steps.num_stps 4",
            "there is no option --model.steps.num_stps, did you mean --model.steps.num_steps?",
        ),
        (
            "--model.step.num_steps 4",
            "there is no option --model.step.num_steps, did you mean --model.steps.num_steps?",
        ),
        ("--trainer.gradient_clip_val x", "trainer.gradient_clip_val is x, but must be int or float"),
        ("--wandb maybe", "wandb is maybe, but must be 'offline', 'online', 'disabled'"),
        ("--trainer.max_stps 3", "there is no option --trainer.max_stps, did you mean --trainer.max_steps?"),
        ("--trainer.max_steps x", "trainer.max_steps is x, but must be int"),
        ("--ckpt_path else.ckpt", "ckpt_path is else.ckpt, but there is no such file; `--ckpt_path last`"),
        ("--config nowhere.yaml", "config is 'nowhere.yaml', but there is no such file"),
    ],
)
def test_mistakes_are_one_sentence_and_leave_no_trace(lightning, run, words, text):
    code, err = lightning("fit", *words.split())
    assert code == 2
    assert text in err
    assert "\n" not in err
    assert not run.exists()


def test_a_null_that_the_command_line_cannot_say_is_sent_to_a_file(monkeypatch, capsys):
    words = ["--config", "configs/demo.yaml", "--data.train.clips", "null", "--print_config"]
    monkeypatch.setattr(sys, "argv", ["lightning", "fit", *words])
    assert main() == 2
    assert "data.train.clips: null is understood in a YAML file" in capsys.readouterr().err


def test_without_a_run_folder_nothing_starts(lightning, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(sys, "argv", ["lightning", "fit", "--config", str(tmp_path / "toy.yaml")])
    assert main() == 2
    assert "run" in capsys.readouterr().err


def test_a_disk_that_fills_up_leaves_the_last_checkpoint(lightning, run, small_disk):
    lightning("fit", "--trainer.max_steps", "3", "--model.width", "40000")
    last = run / "checkpoints" / "last.ckpt"
    before = last.read_bytes()
    small_disk(100_000)  # all fits but a checkpoint
    code, err = lightning("fit", "--ckpt_path", "last", "--model.width", "40000")
    small_disk(resource.RLIM_INFINITY)
    assert code == 2
    assert "is full; free some space and run the same command again" in err
    assert last.read_bytes() == before
    assert [path.name for path in last.parent.iterdir()] == ["last.ckpt"]
    assert lightning("fit", "--ckpt_path", "last", "--model.width", "40000") == (0, "")


def test_a_folder_that_cannot_be_written_is_said_at_once(lightning, run):
    for folder in (run.parent, *run.parent.parents[:-2]):
        folder.chmod(folder.stat().st_mode | 0o055)
    run.parent.chmod(0o555)
    user = os.geteuid()
    try:
        if user == 0:  # who may write anywhere
            os.seteuid(65534)
        code, err = lightning("fit")
    finally:
        os.seteuid(user)
        run.parent.chmod(0o755)
    assert code == 2
    assert f"{run.parent} cannot be written (Permission denied); name a folder that can" in err


@pytest.mark.parametrize(
    ("option", "value", "text"),
    [
        ("default_root_dir", "elsewhere", "trainer.default_root_dir is elsewhere, but a run writes to the folder that"),
        ("enable_checkpointing", "false", "trainer.enable_checkpointing is false, but a run always keeps"),
        ("enable_checkpointing", "true", "trainer.enable_checkpointing is true, but a run always keeps"),
        ("fast_dev_run", "true", "trainer.fast_dev_run is true, but a run keeps all that it trains"),
        ("fast_dev_run", "3", "trainer.fast_dev_run is 3, but a run keeps all that it trains"),
    ],
)
def test_settings_that_a_run_decides_are_refused(lightning, run, option, value, text):
    code, message = lightning("fit", f"--trainer.{option}", value)
    assert code == 2
    assert text in message
    assert not run.exists()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--trainer.val_check_interval", "1.5"), "is 1.5, but must be a share of an epoch, at most 1.0"),
        (
            ("--trainer.val_check_interval", "0.5", "--trainer.check_val_every_n_epoch", "null"),
            "is 0.5, but must be a whole number of batches where trainer.check_val_every_n_epoch is null",
        ),
    ],
)
def test_an_interval_that_is_neither_a_share_of_an_epoch_nor_whole_batches_is_refused(lightning, run, words, text):
    code, message = lightning("fit", *words)
    assert code == 2
    assert f"trainer.val_check_interval {text}" in message
    assert not run.exists()


@pytest.mark.parametrize("command", ["validate", "predict"])
def test_commands_that_add_no_numbers_to_a_run_log_nothing(command):
    one = fit.Command.__new__(fit.Command)
    one.subcommand = command
    assert one._loggers() == []
