"""Two nodes of one process each, as torchrun and SLURM start them, against one node of two processes."""

import json
import os
import subprocess
import sys

import pytest
from command_lines import ROOT
from ports import free_port

CONFIG = """
run: run
wandb: offline
checkpoint_every: 2
model:
  class_path: ProgressiveDistillation
  init_args:
    teacher: {teacher}
    plan: {{start_steps: 8, end_steps: 2, updates: 2}}
    weighting: BSA
    guidance: {{class_path: Baked, init_args: {{scale: 2.0}}}}
    ema_decay: 0.5
data:
  class_path: AudioCapsLatents
  init_args:
    # Prepared by the run itself: by one of the nodes, while the other waits.
    train:
      folder: latents
      teacher: {teacher}
      clips: {{class_path: toy_clips.ToyClips, init_args: {{num_clips: 24}}}}
    val: {{folder: latents}}
    batch_size: 4
    num_val_clips: 4
trainer:
  accelerator: cpu
  strategy: ddp
  enable_progress_bar: false
  val_check_interval: 2
  check_val_every_n_epoch: null
  callbacks: null
"""
FIT = ["bsa_lightning", "fit", "--config", "nodes.yaml"]
TWO_NODES = ["--trainer.num_nodes", "2", "--trainer.devices", "1"]


def torchrun(node, port):
    words = [
        "-m", "torch.distributed.run", "--nnodes", "2", "--nproc_per_node", "1", "--node_rank", str(node),
        "--master_addr", "127.0.0.1", "--master_port", str(port), "-m", *FIT, *TWO_NODES,
    ]  # fmt: skip
    return words, {}


def srun(node, port):
    """What `srun` tells a task; Lightning takes the other words of the job from its environment too."""
    environment = {
        "SLURM_JOB_ID": "17", "SLURM_JOB_NAME": "ladder", "SLURM_NNODES": "2", "SLURM_NODELIST": "127.0.0.1",
        "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "1", "SLURM_NODEID": str(node), "SLURM_PROCID": str(node),
        "SLURM_LOCALID": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip
    return ["-m", *FIT, *TWO_NODES], environment


def run(folder, teacher, *commands):
    """Starts one process for each (words, environment), all in ``folder``, and waits for them."""
    folder.mkdir()
    (folder / "nodes.yaml").write_text(CONFIG.format(teacher=teacher))
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    processes = [
        subprocess.Popen(
            [sys.executable, *words],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **environment},
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        for words, environment in commands
    ]
    errors = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), "\n".join(errors)[-5000:]
    return folder / "run", errors


def students(run):
    return {path.relative_to(run): path.read_bytes() for path in sorted((run / "rounds").rglob("*.safetensors"))}


@pytest.fixture(scope="module")
def one_node(tmp_path_factory, teacher_folder):
    words = ["-m", *FIT, "--trainer.devices", "2"]
    return run(tmp_path_factory.mktemp("nodes") / "one", teacher_folder, (words, {}))[0]


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("start", [srun, torchrun])
def test_two_nodes_make_what_one_makes(start, one_node, tmp_path, teacher_folder):
    port = free_port()
    two_nodes, errors = run(tmp_path / "two", teacher_folder, *(start(node, port) for node in range(2)))
    assert len(students(two_nodes)) == 2
    assert students(two_nodes) == students(one_node)
    assert {path.name for path in two_nodes.iterdir()} == {path.name for path in one_node.iterdir()}
    assert (two_nodes / "metrics.csv").read_text() == (one_node / "metrics.csv").read_text()
    # One node made the latents, the run's folder and its W&B run.
    assert sum("prepare latents" in text for text in errors) == 1
    wandb = [path.name for path in (two_nodes / "wandb").glob("offline-run-*")]
    assert [name.rsplit("-")[-1] for name in wandb] == [
        json.loads((two_nodes / "environment.json").read_text())["wandb_id"]
    ]
