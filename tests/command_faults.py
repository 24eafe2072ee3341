"""Wrong configurations, command lines and checkpoints, and odd ones that are good: see data_faults.

``case.read()`` runs the command in this process. A wrong one raises UserError with the sentence that it prints, after
the exit code 2 and without a trace on disk; a good one returns the exit code 0.
"""

from __future__ import annotations

import contextlib
import io
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random
from unittest import mock

import torch
from fault_case import Build, Case
from toys import TOY_CONFIG

from bsa_lightning.cli import fit  # noqa: F401 - its log handlers must not hold a captured stream
from bsa_lightning.cli.main import main
from bsa_lightning.common.errors import UserError


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


PARTS = ("state_dict", "global_step", "loops", "callbacks", "optimizer_states")


def edited(change: Callable[[dict, Random], object]) -> Build:
    """Changes what the checkpoint holds; the file is a whole one again."""

    def write(data: bytes, rng: Random) -> bytes:
        content = torch.load(io.BytesIO(data), weights_only=True)
        change(content, rng)
        buffer = io.BytesIO()
        torch.save(content, buffer)
        return buffer.getvalue()

    return checkpoint(write)


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
    "another model's": edited(lambda c, _: c["state_dict"].update({"net.weight": torch.zeros(3, 2)})),
    "a weight too many": edited(lambda c, _: c["state_dict"].update(more=torch.zeros(1))),
    "a weight too few": edited(lambda c, _: c["state_dict"].pop("net.bias")),
    "weights that are no numbers": edited(lambda c, _: c["state_dict"]["net.bias"].fill_(torch.nan)),
    "something else where a part belongs": edited(
        lambda c, rng: c.update({rng.choice(PARTS): rng.choice([None, "x", {}, [], [1]])})
    ),
    "no progress": edited(lambda c, _: c["loops"].clear()),
    "no version": edited(lambda c, rng: c.update({"pytorch-lightning_version": rng.choice(["", "x", "3.x.y"])})),
    "other settings": edited(
        lambda c, _: next(v for k, v in c["callbacks"].items() if k.startswith("ResumePoint"))["settings"].update(
            {"model.init_args.width": 7}
        )
    ),
    "weights alone": saved({"state_dict": {"net.weight": torch.zeros(2, 2), "net.bias": torch.zeros(2)}}),
}

GOOD_CHECKPOINTS: dict[str, Build] = {"as it was written": checkpoint(lambda data, _: data)}
