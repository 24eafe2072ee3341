"""Two processes, as `--trainer.devices 2 --trainer.strategy ddp` starts them, against one."""

import hashlib
import json
import os
import subprocess
import sys

import pytest
from command_lines import ROOT
from ladder import data_of, module_of, trainer_of
from lightning.pytorch import Callback
from tolerances import SCORES
from toy_clips import ToyClips

from bsa_lightning.distillation.guidance_modes import Baked, Embedded, Outside
from bsa_lightning.evaluation.scores import ScoreFile
from bsa_lightning.evaluation.scoring import Scoring
from bsa_lightning.evaluation.scoring_settings import ScoringSettings

CONFIG = """
wandb: disabled
model:
  class_path: ProgressiveDistillation
  init_args:
    teacher: {teacher}
    plan: {{start_steps: 8, end_steps: 2, updates: 2}}
    weighting: BSA
    guidance: {{class_path: {guidance}, init_args: {{scale: 2.0}}}}
    ema_decay: 0.5
    adapter: {adapter}
data:
  class_path: AudioCapsLatents
  init_args:
    train: {{folder: {latents}}}
    val: {{folder: {latents}}}
    batch_size: 4
    num_val_clips: 7
trainer:
  accelerator: cpu
  devices: 2
  strategy: ddp
  enable_progress_bar: false
  val_check_interval: 2
  check_val_every_n_epoch: null
  callbacks:
    - class_path: test_ddp.Digests
scoring: {{clips: {{class_path: toy_clips.ToyClips, init_args: {{num_clips: 7}}}}, seeds: [0]}}
"""


class Digests(Callback):
    """Each rank writes down what its teacher, student and average are before each update and at the end."""

    def __init__(self) -> None:
        self.seen = []

    def on_before_zero_grad(self, trainer, pl_module, optimizer):
        self.seen.append([pl_module.global_step, *(digest(part) for part in parts(pl_module))])

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.seen[-1].append(sorted(batch.index.tolist()))

    def on_train_end(self, trainer, pl_module):
        self.seen.append([pl_module.global_step, *(digest(part) for part in parts(pl_module)), []])
        path = f"{trainer.default_root_dir}/rank-{trainer.global_rank}.json"
        with open(path, "w") as file:  # noqa: PTH123
            json.dump(self.seen, file)


def parts(module):
    return module.teacher, module.student, module.ema


def digest(network):
    state = hashlib.sha256()
    for tensor in network.state_dict().values():
        state.update(tensor.contiguous().numpy().tobytes())
    return state.hexdigest()


@pytest.fixture(
    scope="module",
    params=[
        pytest.param((Outside(2.0), "null"), marks=pytest.mark.slow, id="outside"),
        pytest.param((Embedded(2.0), "null"), id="embedded"),
        pytest.param((Baked(2.0), "{class_path: LoRA, init_args: {rank: 2}}"), marks=pytest.mark.slow, id="lora"),
    ],
)
def setting(request):
    """Guidance and adapter; the second changes the teacher's network, inside what DDP wraps, when it is promoted.

    In the third, teacher, student and average have weights in common.
    """
    return request.param


@pytest.fixture(scope="module")
def guidance(setting):
    return setting[0]


@pytest.fixture(scope="module")
def run(teacher_folder, latents_folder, tmp_path_factory, setting):
    folder = tmp_path_factory.mktemp("ddp")
    guidance, adapter = setting
    settings = {"teacher": teacher_folder, "latents": latents_folder, "guidance": type(guidance).__name__}
    settings["adapter"] = adapter
    (folder / "ddp.yaml").write_text(CONFIG.format(**settings))
    path = os.pathsep.join([str(ROOT / "tests"), str(ROOT / "tests" / "training")])
    result = subprocess.run(
        [sys.executable, "-m", "bsa_lightning", "fit", "--config", "ddp.yaml", "--run", "run"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return folder / "run"


def test_both_ranks_hold_the_same_networks_after_every_update_and_promotion(run):
    first, second = (json.loads((run / f"rank-{rank}.json").read_text()) for rank in range(2))
    assert [entry[:4] for entry in first] == [entry[:4] for entry in second]
    assert [entry[0] for entry in first] == [0, 1, 2, 3, 4]
    teachers = [entry[1] for entry in first]
    assert teachers[0] == teachers[1] != teachers[2] == teachers[3]
    assert not any(set(a[4]) & set(b[4]) for a, b in zip(first, second, strict=True))


def test_scores_are_those_of_all_clips_together(run, latents_folder, teacher_folder, tmp_path, guidance):
    ddp = {tuple(row[name] for name in ("model", "num_steps")): row for row in ScoreFile(run / "scores.csv").rows()}
    (tmp_path / "rounds").symlink_to(run / "rounds")
    scoring = Scoring(ScoringSettings(ToyClips(7), seeds=[0], rivals=[]))
    trainer_of(tmp_path, scoring).test(
        module_of(teacher_folder, guidance=guidance), data_of(latents_folder), verbose=False
    )
    alone = ScoreFile(tmp_path / "scores.csv").rows()
    compared = [(row, ddp[row["model"], row["num_steps"]]) for row in alone if row["num_steps"] != "8"]
    assert len(compared) == 5
    for row, other in compared:
        assert row["num_clips"] == other["num_clips"] == "7"
        for metric in ("fd_logmel", "trajectory_error"):
            assert float(other[metric] or 0) == pytest.approx(float(row[metric] or 0), **SCORES)
