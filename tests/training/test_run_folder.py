import json
import os

import pytest

from bsa_lightning.common.errors import UserError
from bsa_lightning.common.files import remove
from bsa_lightning.training.run_folder import OUTPUTS, RunFolder, environment

CONFIG = {"model": {"init_args": {"width": 2, "ema": None, "plan": {"updates": 5}}}, "seed_everything": 0}


@pytest.fixture
def run(tmp_path):
    folder = RunFolder(tmp_path / "run", fresh=True)
    folder.record(CONFIG)
    return folder


def test_it_says_what_it_is(run):
    assert RunFolder(run.path).config() == CONFIG
    recorded = json.loads((run.path / "environment.json").read_text())
    assert recorded.keys() == environment(wandb_id="").keys()
    assert recorded["packages"]["torch"].startswith("2.11")


def test_a_run_keeps_its_wandb_id_until_it_is_replaced(run):
    assert RunFolder(run.path).wandb_id == run.wandb_id
    assert RunFolder(run.path, fresh=True).wandb_id != run.wandb_id


def test_a_used_folder_is_refused_unless_overwritten(run):
    (run.path / "metrics.csv").write_text("step\n1\n")
    with pytest.raises(UserError, match="holds a run already"):
        run.refuse_if_used(overwrite=False, config={})
    run.refuse_if_used(overwrite=True, config={})


@pytest.mark.parametrize(
    ("config", "key"),
    [
        ({"model": {"init_args": {"teacher": "{run}/model"}}}, "model.init_args.teacher"),
        ({"model": {"model": "./{run}"}}, "model.model"),
        ({"data": {"train": {"folder": "{run}/samples/x/../teacher-8steps"}}}, "data.train.folder"),
        ({"scoring": {"embeddings": [{}, {"weights": "{run}/rounds/1-4steps/w.pth"}]}}, "scoring.embeddings.1.weights"),
    ],
)
def test_a_run_is_not_replaced_by_one_that_needs_a_part_of_it(run, tmp_path, monkeypatch, config, key):
    for name in ("model", "samples/store", "samples/x", "samples/teacher-8steps", "rounds/1-4steps", "latents"):
        (run.path / name).mkdir(parents=True)
    (run.path / "samples/teacher-8steps/00-rain.wav").touch()
    (run.path / "rounds/1-4steps/w.pth").touch()
    monkeypatch.chdir(tmp_path)
    here = json.loads(json.dumps(config).replace("{run}", os.path.relpath(run.path)))
    with pytest.raises(UserError, match=rf"{key} is .*, which would be removed with the run"):
        run.refuse_if_used(overwrite=True, config=here)
    with pytest.raises(UserError, match="which holds a run already"):
        run.refuse_if_used(overwrite=False, config=here)
    kept = {"train": str(run.path / "latents"), "n": 1, "val": str(run.path / "samples" / "store"), "word": "run"}
    others = {"name": "nowhere", "long": f"runs/{300 * 'x'}", "rows": "rows"}
    run.refuse_if_used(overwrite=True, config={"run": str(run.path), "data": kept, "scoring": others})


def test_a_run_that_never_began_may_be_started_again(run):
    run.refuse_if_used(overwrite=False, config={})


@pytest.mark.parametrize("names", [[], ["wandb"], [".environment.json.partial-01234567-1-89abcdef"]])
def test_a_new_folder_or_one_with_what_a_refused_or_killed_start_left_is_free(tmp_path, names):
    for name in names:
        (tmp_path / name).mkdir()
    RunFolder(tmp_path).refuse_if_used(overwrite=False, config={})


@pytest.mark.parametrize("overwrite", [True, False])
def test_what_is_no_run_is_never_overwritten(tmp_path, overwrite):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="not a run's folder"):
        RunFolder(tmp_path).refuse_if_used(overwrite=overwrite, config={})


def test_clearing_leaves_what_the_run_did_not_write(run):
    (run.path / "rounds").mkdir()
    (run.path / "rounds" / "1-4steps").mkdir()
    mine = [
        "notes.txt",
        "checkpoints/my.ckpt",
        "samples/mine.wav",
        "report/notes.md",
        "rounds/notes.txt",
        "samples/teacher-8steps/best.wav",
    ]
    theirs = [
        "samples/teacher-8steps/00-rain.wav",
        "samples/0001-rain.wav",
        "report/index.html",
        "checkpoints/last.ckpt",
    ]
    for name in (*mine, *theirs):
        (run.path / name).parent.mkdir(exist_ok=True, parents=True)
        (run.path / name).write_text("x")
    run.clear()
    left = sorted(str(path.relative_to(run.path)) for path in run.path.rglob("*") if path.is_file())
    assert left == sorted(mine)
    assert not (run.path / "rounds" / "1-4steps").exists()


@pytest.mark.parametrize("dies_at", range(len(OUTPUTS) - 4))  # four are folders without anything in them here
def test_what_a_killed_removal_left_is_replaced_and_never_gone_on_with(run, dies_at, monkeypatch):
    for folder in ("checkpoints", "rounds", "samples"):
        (run.path / folder).mkdir()
    run.last_checkpoint.touch()
    paths = []

    def die(path):
        paths.append(path)
        if len(paths) > dies_at:
            raise InterruptedError
        remove(path)

    monkeypatch.setattr("bsa_lightning.training.run_folder.remove", die)
    with pytest.raises(InterruptedError):
        run.clear()
    RunFolder(run.path).refuse_if_used(overwrite=True, config={})
    assert run.last_checkpoint.exists() == (dies_at == 0)
    if run.last_checkpoint.exists() or (run.path / "rounds").exists():
        assert run.config() == CONFIG


@pytest.mark.parametrize(
    ("config", "key"),
    [
        ({**CONFIG, "model": {"init_args": {"width": 3}}}, "model.init_args.width is 3"),
        ({**CONFIG, "model": {"init_args": {"plan": {"updates": 6}}}}, "model.init_args.plan.updates is 6"),
        ({**CONFIG, "seed_everything": 1}, "seed_everything is 1"),
        ({**CONFIG, "model": {"init_args": {"ema": {"decay": 0.5}}}}, "model.init_args.ema.decay is 0.5"),
        ({**CONFIG, "model": {"init_args": {"plan": None}}}, "model.init_args.plan.updates is None"),
    ],
)
def test_a_contradiction_is_refused_by_name(run, config, key):
    with pytest.raises(UserError, match=key):
        run.refuse_contradiction(config, sections=("model", "seed_everything"))


@pytest.mark.parametrize(
    ("limit", "is_refused"),
    [({"patience": 2}, True), ({"most_updates": [9]}, True), ({"patience": None}, False), ({}, False)],
)
def test_validations_that_judge_rounds_must_stay_as_they_were(run, limit, is_refused):
    config = {**CONFIG, "model": {"init_args": {"plan": {"updates": 5, **limit}}}}
    run.record({**config, "trainer": {"val_check_interval": 50}})
    changed = {**config, "trainer": {"val_check_interval": 60}}
    if is_refused:
        with pytest.raises(UserError, match=r"trainer\.val_check_interval is 60 and was 50"):
            run.refuse_contradiction(changed, sections=("model",))
    else:
        run.refuse_contradiction(changed, sections=("model",))


def test_what_only_one_side_names_is_no_contradiction(run):
    run.refuse_contradiction({"model": {"init_args": {"depth": 1}}, "trainer": {"devices": 2}}, sections=("model",))
