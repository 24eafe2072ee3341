"""Moments to die at, as text, and how a process arms one before it runs the command line.

Between two changes of the file system what lies on disk stays the same. So a death just before each change (``at``) and
deaths in the midst of writing (``bytes``) are all there are, whatever the code looks like; a death some milliseconds
after a function began or ended (``after``), or after the command began (``clock``), checks that nothing was forgotten.
"""

import importlib
import os
import re
import resource
import signal
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

FUNCTIONS = (
    "bsa_lightning.distillation.module:ProgressiveDistillation.promote",
    "bsa_lightning.distillation.module:ProgressiveDistillation.finish_round",
    "bsa_lightning.distillation.module:ProgressiveDistillation.optimizer_step",
    "bsa_lightning.distillation.module:ProgressiveDistillation.on_validation_epoch_end",
    "bsa_lightning.distillation.round_budget:RoundBudget.judge",
    "bsa_lightning.distillation.round_judge:RoundJudge.on_validation_epoch_end",
    "bsa_lightning.distillation.denoising:Denoising.optimizer_step",
    "bsa_lightning.evaluation.evaluator:Evaluator.score",
    "bsa_lightning.evaluation.scores:ScoreFile.append",
    "bsa_lightning.evaluation.row_store:save_rows",
    "bsa_lightning.training.metrics_file:MetricsFile.log_metrics",
    "bsa_lightning.data.latents:write_shard",
    "bsa_lightning.data.latents:write_index",
    "lightning.pytorch:Trainer.save_checkpoint",
    "torch:save",
)
"""Where runs are watched; one that is not there any more is an error, so that none is forgotten unnoticed."""

_CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink")


@dataclass(frozen=True)
class Moment:
    """When to die.

    Args:
        kind: ``at`` the label; ``after`` it by ``extra`` milliseconds; ``bytes``: when the file that the label opens
            has grown by ``extra`` bytes; ``clock``: ``extra`` seconds after the command began; ``end``: never.
        label: as the census of an untouched run has it.
        nth: which occurrence of the label.
        extra: see ``kind``.
        rank: of the process that arms it.
        alone: whether only this rank dies, and not the whole machine.
    """

    kind: str
    label: str = ""
    nth: int = 1
    extra: float = 0.0
    rank: int = 0
    alone: bool = False

    def __str__(self) -> str:
        text = f"{self.kind}|{self.label}|{self.nth}|{self.extra:g}"
        return text + (f"|rank {self.rank}{' alone' * self.alone}" if self.rank or self.alone else "")

    @classmethod
    def parse(cls, text: str) -> "Moment":
        """The inverse of ``str``."""
        kind, label, nth, extra, *where = text.split("|")
        rank = int(where[0].split()[1]) if where else 0
        return cls(kind, label, int(nth), float(extra), rank, bool(where) and where[0].endswith("alone"))

    def strike(self, path: str) -> None:
        """The label is reached; ``path`` is what it opens, if it does."""
        if self.kind == "at":
            os.kill(os.getpid(), signal.SIGKILL) if self.alone else os.killpg(0, signal.SIGKILL)
        elif self.kind == "after":
            # The alarm's default is to end the process as SIGKILL does, in the middle of C code too.
            signal.setitimer(signal.ITIMER_REAL, max(self.extra, 0.01) / 1000)
        elif self.kind == "bytes":
            size = Path(path).stat().st_size if Path(path).is_file() else 0
            _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (size + int(self.extra), hard))


class Watch:
    """Counts what a process reaches: changes of the file system below ``folder``, and functions.

    Args:
        folder: of the attempt.
        moment: to die at, if any.
        census: a file for all that is reached, with the seconds since the start, if wanted.
    """

    def __init__(self, folder: Path, moment: Moment | None, census: Path | None) -> None:
        self.folder = str(folder)
        self.moment = moment
        self.counts: Counter[str] = Counter()
        self.began = time.monotonic()
        self.census = os.open(census, os.O_CREAT | os.O_WRONLY | os.O_APPEND) if census else None

    def start(self) -> None:
        """Cannot be undone: for a process that ends after its command."""
        for number in (signal.SIGXFSZ, signal.SIGALRM):
            signal.signal(number, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        self._tell_opens()
        for name in FUNCTIONS:
            self._wrap(name)
        sys.addaudithook(self._audit)

    def reach(self, label: str, path: str = "") -> None:
        self.counts[label] += 1
        if self.census is not None:
            os.write(self.census, f"{time.monotonic() - self.began:.4f}\t{label}\n".encode())
        if self.moment and self.moment.label == label and self.moment.nth == self.counts[label]:
            self.moment.strike(path)

    def _audit(self, event: str, arguments: tuple) -> None:
        if event == "open":
            path, mode, flags = arguments
            if isinstance(path, int) or path is None:
                return
            writes = any(letter in mode for letter in "wax+") if mode else flags & (os.O_WRONLY | os.O_RDWR)
            if not writes:
                return
            verb = "open"
        elif event in _CHANGES:
            verb, path = event[3:], arguments[1] if event == "os.rename" else arguments[0]
        else:
            return
        path = os.path.abspath(os.fsdecode(path))  # noqa: PTH100 - links stay as they are
        if path.startswith(self.folder + os.sep):
            self.reach(f"{verb} {plain(path[len(self.folder) + 1 :])}", path)

    def _wrap(self, name: str) -> None:
        module, _, path = name.partition(":")
        owner = importlib.import_module(module)
        *classes, last = path.split(".")
        for part in classes:
            owner = getattr(owner, part)
        original = getattr(owner, last)

        def watched(*arguments, **named):
            self.reach(f"call {path}")
            result = original(*arguments, **named)
            self.reach(f"return {path}")
            return result

        setattr(owner, last, watched)
        if not classes:  # a function, which others have imported by name
            for module in list(sys.modules.values()):
                if getattr(module, "__dict__", {}).get(last) is original:
                    setattr(module, last, watched)

    def _tell_opens(self) -> None:
        """Libraries that open files in Rust or C tell Python's audit nothing."""
        import safetensors.torch
        import soundfile
        import torch

        serialize, write, save = safetensors.torch.serialize_file, soundfile.write, torch.save

        def serialize_file(tensors, filename, *rest, **named):
            sys.audit("open", str(filename), "wb", 0)
            return serialize(tensors, filename, *rest, **named)

        def write_sound(file, *rest, **named):
            sys.audit("open", str(file), "wb", 0)
            return write(file, *rest, **named)

        def save_tensors(content, file, *rest, **named):
            if isinstance(file, str | os.PathLike):
                sys.audit("open", str(file), "wb", 0)
            return save(content, file, *rest, **named)

        safetensors.torch.serialize_file, soundfile.write, torch.save = serialize_file, write_sound, save_tensors


def plain(path: str) -> str:
    """A path without the parts that differ from process to process."""
    path = re.sub(r"\.(partial|old)-[^/]*", r".\1", path)
    return re.sub(r"\btmp[a-z0-9_]{8}\b", "tmp", path)
