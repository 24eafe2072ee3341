"""Wrong configurations, and odd ones that are good: see data_faults and command_faults."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random

from command_faults import fitted, run
from fault_case import Build, Case


def config(*texts: str | bytes) -> Build:
    return lambda folder, rng: fitted(folder, text=rng.choice(texts))


def option(name: str, *values: str) -> Build:
    return lambda folder, rng: fitted(folder, name, rng.choice(values))


CONFIGS: dict[str, Build] = {
    "not text": config(b"\xff\xfea", b"a: \xff\n", b'run: "x\0y"\n', "a: 1\n".encode("utf-16"), b"\x80" * 99),
    "not YAML": config("a: [1,\n", "a: b: c\n", "\t- a\n", "a: *nowhere\n", "{a: 1, [b]: 2}\n", "'", "a: !foo x\n"),
    "no settings": config("", "\n\n", "- a\n", "x\n", "3\n", "a: 1\n---\nb: 2\n"),
    "code": config("run: !!python/object/apply:os.system [true]\n", "a: !!python/name:os.system\n"),
    "aliases without end": config("a: &a [*a]\n", "a: &a {b: *a}\n", "model: &m {init_args: *m}\n"),
    "aliases that explode": lambda folder, rng: fitted(folder, text=exploding(rng)),
    "nesting without end": config("[" * 10_000, "a: " + "{a: " * 500, "a: " + "[" * 200 + "]" * 200),
    "a key twice": config("wandb: offline\nwandb: disabled\n", "trainer: {max_steps: 3, max_steps: 4}\n"),
    "references to themselves": config(
        "wandb: ${wandb}\n", "wandb: ${overwrite}\noverwrite: ${wandb}\n",
        "model: {init_args: {width: '${model.init_args.width}'}}\n",
    ),
    "references to nothing": config(
        "wandb: ${nowhere}\n", "wandb: ${trainer.nowhere}\n", "wandb: ${oc.env:NO_SUCH_VARIABLE}\n",
        "wandb: ${no_such:x}\n",
    ),
    "half a reference": config("wandb: ${\n", "wandb: ${run\n", "wandb: '${}'\n"),
    "a setting that is none": config("rum: x\n", "trainer: {max_stps: 3}\n", "model: {init_args: {wdth: 3}}\n"),
    "a class that is none": config(
        "model: {class_path: toys.Nothing}\n", "model: {class_path: no.such.module}\n", "data: {class_path: 3}\n",
        "model: {class_path: torch.nn.Linear}\n", "model: {init_args: {weighting: BSAA}}\n",
        "model: {init_args: {weighting: {class_path: torch.nn.Linear}}}\n", "trainer: {callbacks: [Nothing]}\n",
        "model: {class_path: ''}\n", "model: 3\n", "model: []\n", "data: null\n", "trainer: 3\n",
    ),
    "a device that is none": option("--trainer.devices", "-4", "0", "many", "[]", "[-1]"),
    "a strategy that is none": option("--trainer.strategy", "nope", "ddp_nope", ""),
    "an accelerator that is none": option("--trainer.accelerator", "nope", "cuda", "mps"),
    "nodes that are none": option("--trainer.num_nodes", "0", "-1", "x"),
    "a precision that is none": option("--trainer.precision", "nope", "31", "-1"),
    "steps that are none": option("--trainer.max_steps", "0", "-5", "x", "1.5", "nan"),
    "epochs that are none": option("--trainer.max_epochs", "0", "-5", "x", "1.5"),
    "batches that are none": option("--trainer.limit_train_batches", "0", "-1", "1.5", "nan", "x"),
    "a clip that is none": option("--trainer.gradient_clip_val", "-1", "nan", "inf", "x"),
    "an accumulation that is none": option("--trainer.accumulate_grad_batches", "0", "-1", "1.5", "x"),
    "a validation that is none": option("--trainer.val_check_interval", "-1", "nan", "2.5", "x"),
    "an algorithm that is none": option("--trainer.gradient_clip_algorithm", "nope"),
    "a time that is none": option("--trainer.max_time", "soon", "1:2", "-1"),
    "a checkpoint interval that is none": option("--checkpoint_every", "0", "-1", "x", "1.5"),
    "a seed that is none": option("--seed_everything", "-1", "x", "1.5", str(2**40)),
    "a mode that is none": option("--wandb", "maybe", "", "0"),
    "an epoch interval that is none": option("--trainer.check_val_every_n_epoch", "0", "-1", "1.5"),
    "a truth that is none": option("--overwrite", "maybe", "2"),
    "a checkpoint that is not there": option("--ckpt_path", "nowhere.ckpt", "/nowhere/x.ckpt", "x" * 300),
    "two callbacks of one kind": config(
        "trainer: {callbacks: [{class_path: bsa_lightning.training.bad_updates.BadUpdates},"
        " {class_path: bsa_lightning.training.bad_updates.BadUpdates}]}\n"
    ),
    "a run folder that can be none": lambda folder, rng: fitted(
        folder, "--run", rng.choice([f"{folder}/toy.yaml", f"{folder}/toy.yaml/x", "x" * 300, "", "/proc/x"])
    ),
    "a run folder with other things": lambda folder, rng: foreign(folder, rng),
    "a file that is no file": lambda folder, rng: fitted(
        folder, "--config", rng.choice([str(folder), "nowhere.yaml", "x" * 300, "/dev/null/x", pipe(folder)])
    ),
    "settings before their class": lambda folder, rng: distilled(
        folder, *rng.choice([("--model.weighting.gamma", "3", "--model.weighting", "MinSNR"), ("--data", "Captions"),
                             ("--config", str(Path(__file__).parent.parent / "configs" / "predict.yaml"))])
    ),
    "numbers of the model outside their range": lambda folder, rng: distilled(folder, *rng.choice(OUTSIDE)),
}  # fmt: skip

OUTSIDE = [
    (f"--model.{name}", value)
    for name, values in {
        "guidance": ("Nothing", "3"),
        "ema_decay": ("0", "1", "-1", "nan", "2"),
        "seed": ("-1", "x", "1.5"),
        "optimizer.lr": ("-1", "0", "nan", "inf"),
        "guidance.scale": ("-1", "nan", "inf", "x"),
        "weighting.gamma": ("0", "-5", "nan", "inf"),
        "plan.start_steps": ("0", "-8", "7", "12", "4096"),
        "plan.end_steps": ("0", "-1", "3", "16"),
        "plan.updates": ("0", "-1", "[1]", "nan"),
        "plan.factor": ("0", "1", "-2", "3"),
        "plan.patience": ("0", "-1"),
        "plan.most_updates": ("0", "1", "nan"),
        "teacher": ("nowhere", "", "/dev/null", "x" * 300),
    }.items()
    for value in values
] + [
    (f"--data.{name}", value)
    for name, values in {
        "batch_size": ("0", "-1", "x", "1.5"),
        "num_val_clips": ("0", "-1"),
        "num_workers": ("-1",),
        "seed": ("-1",),
        "shuffle_shards": ("0", "-1"),
    }.items()
    for value in values
]


def distilled(folder: Path, *words: str) -> Case:
    demo = str(Path(__file__).parent.parent / "configs" / "demo.yaml")
    given = ["fit", "--config", demo, "--run", str(folder / "run"), "--wandb", "disabled"]
    return Case(lambda: run([*given, *words]), 0)


def exploding(rng: Random) -> str:
    width, depth = rng.randint(5, 12), rng.randint(8, 20)
    lines = [f"a0: &a0 [{', '.join('x' * width)}]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * width)}]" for i in range(1, depth)]
    return "\n".join(lines) + "\n"


def pipe(folder: Path) -> str:
    os.mkfifo(folder / "pipe.yaml")
    return str(folder / "pipe.yaml")


def foreign(folder: Path, rng: Random) -> Case:
    (folder / "run").mkdir()
    name = rng.choice(["config.yaml", "thesis.txt", "metrics.csv", "scores.csv", "rounds", "samples/x.wav", "report/a"])
    (folder / "run" / name).parent.mkdir(exist_ok=True)
    (folder / "run" / name).write_text("mine")
    words = rng.choice([(), ("--overwrite", "true")])
    return fitted(folder, *words)


GOOD_CONFIGS: dict[str, Build] = {
    "as it is": config("# nothing\n", "{}\n"),
    "aliases and references": config(
        "model: &m {init_args: {width: 3}}\nseed_everything: 5\n", "trainer: {max_steps: '${checkpoint_every}'}\n"
    ),
    "saved on Windows": config(b"\xef\xbb\xbfcheckpoint_every: 3\r\nseed_everything: 4\r\n"),
    "names of runs": lambda folder, rng: fitted(
        folder, "--run", str(folder / rng.choice(["a b", "é", "a|b", "$x", "x.y", "-", "日本"]))
    ),
    "beside the log of a scheduler": lambda folder, rng: logged(folder, rng),
    "numbers at their ends": lambda folder, rng: fitted(
        folder,
        *rng.choice([("--seed_everything", "0"), ("--trainer.gradient_clip_val", "0"), ("--checkpoint_every", "1000")]),
    ),
}


def logged(folder: Path, rng: Random) -> Case:
    (folder / "run").mkdir()
    (folder / "run" / rng.choice(["slurm-17.out", "job.log", "nohup.out"])).write_text("started")
    return fitted(folder, *rng.choice([(), ("--ckpt_path", "last")]))
