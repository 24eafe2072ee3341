"""Wrong configurations, command lines and checkpoints, and odd ones that are good: see data_faults.

``case.read()`` runs the command in this process. A wrong one raises UserError with the sentence that it prints, after
the exit code 2 and without a trace on disk; a good one returns the exit code 0.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random
from unittest import mock

import torch
from fault_case import Build, Case
from toys import TOY_CONFIG

from bsa_lightning.commands import fit  # noqa: F401 - its log handlers must not hold a captured stream
from bsa_lightning.commands.main import main
from bsa_lightning.errors import UserError


def run(words: list[str]) -> int:
    """The exit code; what a refused command prints is raised."""
    errors = io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["lightning", *words]),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(errors),
    ):
        try:
            code = main()
        except SystemExit as exit_:
            code = int(exit_.code or 0)
    lines = [line for line in errors.getvalue().splitlines() if line.startswith("lightning ")]
    if code == 2:
        assert len(lines) == 1, errors.getvalue()
        raise UserError(lines[0])
    return code


def fitted(folder: Path, *words: str, text: str | bytes | None = None) -> Case:
    """``lightning fit`` with the toy configuration, then ``text`` as another, then words."""
    (folder / "toy.yaml").write_text(TOY_CONFIG)
    given = ["fit", "--config", str(folder / "toy.yaml")]
    if text is not None:
        (folder / "c.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
        given += ["--config", str(folder / "c.yaml")]
    if "--run" not in words:
        given += ["--run", str(folder / "run")]
    return Case(lambda: run([*given, *words]), 0)


def config(*texts: str | bytes) -> Build:
    return lambda folder, rng: fitted(folder, text=rng.choice(texts))


def option(name: str, *values: str) -> Build:
    return lambda folder, rng: fitted(folder, name, rng.choice(values))


CONFIGS: dict[str, Build] = {
    "not text": config(b"\xff\xfea", b"a: \xff\n", b'run: "x\0y"\n', "a: 1\n".encode("utf-16"), b"\x80" * 99),
    "not YAML": config("a: [1,\n", "a: b: c\n", "\t- a\n", "a: *nowhere\n", "{a: 1, [b]: 2}\n", "'", "a: !foo x\n"),
    "no settings": config("- a\n", "x\n", "3\n", "a: 1\n---\nb: 2\n"),
    "code": config("run: !!python/object/apply:os.system [true]\n", "a: !!python/name:os.system\n"),
    "aliases without end": config("a: &a [*a]\n", "a: &a {b: *a}\n", "model: &m {init_args: *m}\n"),
    "aliases that explode": lambda folder, rng: fitted(folder, text=exploding(rng)),
    "nesting without end": config("[" * 10_000, "a: " + "{a: " * 500, "a: " + "[" * 200 + "]" * 200),
    "a key twice": config("wandb: offline\nwandb: disabled\n", "trainer: {max_steps: 3, max_steps: 4}\n"),
    "references to themselves": config(
        "run: ${run}\n", "wandb: ${run}\nrun: ${wandb}\n", "model: {init_args: {width: '${model.init_args.width}'}}\n"
    ),
    "references to nothing": config(
        "run: ${nowhere}\n", "run: ${trainer.nowhere}\n", "run: ${oc.env:NO_SUCH_VARIABLE}\n", "run: ${no_such:x}\n"
    ),
    "half a reference": config("run: ${\n", "run: ${run\n", "run: '${}'\n"),
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
    "a truth that is none": option("--overwrite", "maybe", "2"),
    "a checkpoint that is not there": option("--ckpt_path", "nowhere.ckpt", "/nowhere/x.ckpt", "x" * 300),
    "two callbacks of one kind": config(
        "trainer: {callbacks: [{class_path: bsa_lightning.distillation.bad_updates.BadUpdates},"
        " {class_path: bsa_lightning.distillation.bad_updates.BadUpdates}]}\n"
    ),
    "a run folder that can be none": lambda folder, rng: fitted(
        folder, "--run", rng.choice([str(folder / "toy.yaml"), str(folder / "toy.yaml" / "x"), "x" * 300, "", "/proc/x"])
    ),
    "a run folder with other things": lambda folder, rng: foreign(folder, rng),
    "a file that is no file": lambda folder, rng: fitted(
        folder, "--config", rng.choice([str(folder), "nowhere.yaml", "x" * 300, "/dev/null/x", pipe(folder)])
    ),
    "numbers of the model outside their range": lambda folder, rng: distilled(folder, *rng.choice(OUTSIDE)),
}  # fmt: skip

OUTSIDE = [
    (f"--model.{name}", value)
    for name, values in {
        "caption_dropout": ("2", "-1", "nan", "x"),
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
    "as it is": config("", "# nothing\n", "{}\n", "\n\n"),
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


def words(*choices: tuple[str, ...]) -> Build:
    """One of some command lines; FILE, FOLDER, SOUNDS and NOWHERE stand for such."""

    def build(folder: Path, rng: Random) -> Case:
        (folder / "file").write_text("mine")
        (folder / "folder").mkdir()
        (folder / "folder" / "thing").write_text("mine")
        places = {"FILE": "file", "FOLDER": "folder", "NOWHERE": "nowhere", "NEW": "new"}
        given = []
        for word in rng.choice(choices):
            for name, place in places.items():
                word = word.replace(name, str(folder / place))
            given.append(word)
        return Case(lambda: run(given), 0)

    return build


WORDS: dict[str, Build] = {
    "no command": words(("nope",), ("genrate", "x"), ("",), ("\udcff",), ("--nope",), ("x" * 3000,)),
    "nothing to do": words(
        ("generate",), ("report",), ("export",), ("score",), ("convert",), ("prepare",), ("dashboard",), ("fit",)
    ),
    "no caption": words(("generate", ""), ("generate", "   "), ("generate", "a", ""), ("generate", "\udcff", "--out", "NEW")),
    "steps that are none": words(*(("generate", "x", "--out", "NEW", "--steps", v) for v in ("0", "-1", "x", "1.5", "nan", "5000"))),
    "guidance that is none": words(*(("generate", "x", "--out", "NEW", "--guidance", v) for v in ("-1", "nan", "inf", "x"))),
    "seeds that are none": words(*(("generate", "x", "--out", "NEW", "--seed", v) for v in ("-1", "x", "1.5", "nan"))),
    "samples that are none": words(*(("generate", "x", "--out", "NEW", "--num_samples", v) for v in ("0", "-1", "x"))),
    "models that are none": words(
        *(("generate", "x", "--out", "NEW", "--model", v) for v in ("NOWHERE", "FILE", "FOLDER", "", "x" * 300, "FILE/x"))
    ),
    "places that are none": words(
        ("generate", "x", "--out", "FILE"), ("generate", "x", "--out", "FILE/x"), ("generate", "x", "--out", "x" * 300)
    ),
    "options that are none": words(
        ("generate", "x", "--stps", "3"), ("report", "FOLDER", "--ou", "x"), ("score", "FOLDER", "FOLDER", "--nope", "1"),
        ("prepare", "--nope"), ("fit", "--nope"), ("generate", "x", "--steps"), ("export", "FOLDER", "NEW", "--x=1"),
    ),
    "runs that are none": words(
        *((command, place) for command in ("report", "dashboard") for place in ("NOWHERE", "FILE", "FOLDER", "", "x" * 300)),
    ),
    "exports that are none": words(
        ("export", "NOWHERE", "NEW"), ("export", "FILE", "NEW"), ("export", "FOLDER", "NEW"), ("export", "FOLDER", "FILE"),
        ("export", "FOLDER", "NEW", "--student", "best"), ("export", "FOLDER"),
    ),
    "checkpoints that are none": words(
        ("convert", "NOWHERE", "NEW"), ("convert", "FILE", "NEW"), ("convert", "FOLDER", "NEW"), ("convert", "FOLDER", "FILE"),
        ("convert", "FOLDER", "FOLDER"), ("convert", "", "NEW"),
    ),
    "scores that are none": words(
        ("score", "NOWHERE", "FOLDER"), ("score", "FOLDER", "FOLDER"), ("score", "FILE", "FILE"), ("score", "FOLDER"),
        ("score", "FOLDER", "FOLDER", "--out", "FOLDER"), ("score", "FOLDER", "FOLDER", "--embeddings+", "Nope"),
        ("score", "FOLDER", "FOLDER", "--captions", "NOWHERE"), ("score", "FOLDER", "FOLDER", "--cache", "FILE"),
    ),
    "lists that are none": words(
        *(
            ("prepare", "--clips", kind, f"--clips.{name}", place, "--clips.audio_dir", "FOLDER", "--out", "NEW")
            for kind, name in (("TangoManifest", "jsonl"), ("AudioCapsManifest", "csv"))
            for place in ("NOWHERE", "FOLDER", "FILE", "", "/dev/zero")
        )
    ),
    "soundscapes that are none": words(
        *(
            ("prepare", "--clips", "Soundscapes", "--clips.num_clips", number, "--clips.seed", seed, "--out", out)
            for number, seed, out in (("0", "0", "NEW"), ("-1", "0", "NEW"), ("1", "-1", "NEW"), ("2", "0", "FILE"),
                                      ("2", "0", "FOLDER"), ("x", "0", "NEW"), ("1.5", "0", "NEW"))
        )
    ),
    "predictions that are none": words(
        *(
            ("predict", "--run", "NEW", "--data", "Captions", "--data.file", file, "--model", "Generation", "--model.model",
             model, "--wandb", "disabled")
            for file, model in (("NOWHERE", "tiny"), ("FOLDER", "tiny"), ("FILE", "NOWHERE"), ("/dev/zero", "tiny"))
        )
    ),
}  # fmt: skip

GOOD_WORDS: dict[str, Build] = {
    "captions that look like settings": words(
        *(
            ("generate", caption, "--steps", "1", "--out", "NEW")
            for caption in ("Rain costs ${amount} a day", "{a: b}", "${oc.env:HOME}", "null", "1", "[x]", "a: b", "-5 degrees", "a | b", "'")
        ),
        ("generate", "--steps=1", "--out=NEW", "--", "--a caption"),
    ),
    "help": words(("--help",), ("--version",), ()),
}  # fmt: skip


def checkpoint(change: Callable[[bytes, Random], bytes]) -> Build:
    """Changes the checkpoint of a run of six updates, which ``template`` in the folder is, and goes on with it."""

    def build(folder: Path, rng: Random) -> Case:
        case = fitted(folder, "--ckpt_path", "last", "--trainer.max_steps", "8")
        shutil.copytree(folder.parent / "template" / "run", folder / "run")
        last = folder / "run" / "checkpoints" / "last.ckpt"
        last.write_bytes(change(last.read_bytes(), rng))
        return case

    return build


def saved(content: object) -> Build:
    def change(_: bytes, __: Random) -> bytes:
        buffer = io.BytesIO()
        torch.save(content, buffer)
        return buffer.getvalue()

    return checkpoint(change)


def flipped(data: bytes, rng: Random) -> bytes:
    place = rng.randrange(len(data))
    return data[:place] + bytes([data[place] ^ (1 << rng.randrange(8))]) + data[place + 1 :]


CHECKPOINTS: dict[str, Build] = {
    "cut short": checkpoint(lambda data, rng: data[: rng.randrange(len(data) - 1)]),
    "nothing in it": checkpoint(lambda *_: b""),
    "random bytes": checkpoint(lambda _, rng: rng.randbytes(999)),
    "text": checkpoint(lambda *_: b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"),
    "a pickle with code": checkpoint(lambda *_: b"cos\nsystem\n(S'touch owned'\ntR."),
    "something else that was saved": saved([1, 2]),
    "a tensor": saved(torch.zeros(3)),
    "an empty dictionary": saved({}),
    "weights alone": saved({"state_dict": {"net.weight": torch.zeros(2, 2), "net.bias": torch.zeros(2)}}),
}
