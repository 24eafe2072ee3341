"""One name for a run, its students and models: what ``report``, ``export``, ``generate`` and ``score`` take."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from bsa_lightning.common.errors import UserError
from bsa_lightning.models.provenance import INDEX, PROVENANCE
from bsa_lightning.training.run_files import CONFIG, ENVIRONMENT

_STUDENT = re.compile(r"\d+-\d+steps")
"""The name of a student's folder, ``<round>-<N>steps``; one that is being written has a dot before its name."""
ADAPTER_WEIGHTS = "adapter_model.safetensors"
"""The file that peft writes an adapter to."""
_LONGEST = 8
"""The most names that a message lists."""


@dataclass(frozen=True)
class Named:
    """What a path names.

    Args:
        path: the path.
        setting: the name of the setting that holds it, for messages.
    """

    path: Path
    setting: str

    @property
    def is_run(self) -> bool:
        """Whether it is the folder of a run, whatever has become of it."""
        names = (ENVIRONMENT, "scores.csv", "rounds")
        return (self.path / CONFIG).is_file() or any((self.path / name).exists() for name in names)

    @property
    def is_model(self) -> bool:
        """Whether it is a model folder, or the folder of a student."""
        return any((self.path / name).is_file() for name in (INDEX, PROVENANCE))

    def refuse_adapter(self) -> None:
        """Refuses an adapter, which is no model by itself.

        Raises:
            UserError: if the folder holds one.
        """
        if (self.path / ADAPTER_WEIGHTS).is_file():
            raise UserError(
                f"{self.setting} is {self.path}, the adapter of a student, which is no model without its teacher; name"
                " the student or its run"
            )

    def students(self) -> list[str]:
        """Returns the names of a run's finished students, by round."""
        found = (path.name for path in (self.path / "rounds").glob("*") if _STUDENT.fullmatch(path.name))
        return sorted(found, key=lambda name: int(name.split("-")[0]))

    def runs_inside(self) -> list[Path]:
        """Returns the runs that the folder holds, at any depth, in alphabetical order."""
        return list(_runs_inside(self.path))

    def refuse_other_than_folder(self, example: str) -> None:
        """Refuses a path that is no folder.

        Args:
            example: what should be named, with an example.

        Raises:
            UserError: if it is not there, or is a file.
        """
        if self.path.is_dir():
            return
        how = "is a file" if self.path.is_file() else "is no folder" if self.path.exists() else "does not exist"
        raise UserError(f"{self.setting} is {self.path}, which {how}; name {example}")


def _runs_inside(folder: Path, depth: int = 3) -> Iterable[Path]:
    for inside in sorted(folder.iterdir()) if folder.is_dir() and depth else ():
        if inside.is_dir() and not inside.name.startswith("."):
            if Named(inside, "").is_run:
                yield inside
            else:
                yield from _runs_inside(inside, depth - 1)


def run_of(path: Path, *, setting: str) -> tuple[Path, str | None]:
    """Returns a run, and the name of its student if a path names one.

    Args:
        path: the folder of a run, its ``rounds``, the folder of one of its students, or a folder with a single run.
        setting: the name of the setting, for messages.

    Raises:
        UserError: if it names no run, or several.
    """
    named = Named(Path(path), setting)
    named.refuse_other_than_folder("the folder of a run, such as runs/demo")
    inside = named.path.absolute()
    if inside.parent.name == "rounds" and _STUDENT.fullmatch(inside.name):
        return named.path / ".." / ".." if named.path.name in (".", "..") else named.path.parent.parent, inside.name
    if inside.name == "rounds" and not named.is_run:
        return named.path.parent, None
    if named.is_run or not (runs := named.runs_inside()):
        return named.path, None
    if len(runs) > 1:
        raise UserError(f"{setting} is {named.path}, which holds several runs: {listed(runs)}; name one of them")
    return runs[0], None


def model_of(model: str | Path, *, setting: str = "model") -> str | Path:
    """Returns the folder of a model: of a run its last student, or the teacher that it has fine-tuned.

    Args:
        model: a model folder, the folder of a student, of a run or of a single run's parent, a hub id, or "tiny".
        setting: the name of the setting, for messages.

    Raises:
        UserError: if it is a file, or a run without a model.
    """
    named = Named(Path(model), setting)
    if named.path.is_file():
        named.refuse_other_than_folder('the folder of a model, a student or a run, or "tiny"')
    named.refuse_adapter()
    if not named.path.is_dir() or named.is_model:
        return model
    run, student = run_of(named.path, setting=setting)
    found = Named(run, setting)
    if student is not None:
        return run / "rounds" / student
    if names := found.students():
        return run / "rounds" / names[-1]
    if Named(run / "model", setting).is_model:
        return run / "model"
    if found.is_run:
        raise UserError(f"{setting} is {model}, a run without a finished student; continue it, or name another")
    return model


def scored_runs(runs: list[Path]) -> tuple[list[Path], list[Path]]:
    """Returns the runs that some paths name, and those among them that are not scored and are to be left out.

    A folder that is no run stands for the runs in it, and a student for its run. A single run is never left out, so
    that a message can say what it lacks.

    Args:
        runs: the paths.

    Raises:
        UserError: if a path is no folder.
    """
    found: dict[Path, None] = {}
    for path in runs:
        named = Named(Path(path), "runs")
        named.refuse_other_than_folder("run folders, such as runs/demo")
        inside = [] if named.is_run else named.runs_inside()
        found |= dict.fromkeys(inside or [run_of(named.path, setting="runs")[0]])
    scored = [run for run in found if (run / "scores.csv").is_file()]
    if not scored:
        return list(found), []
    return scored, [run for run in found if run not in scored]


def listed(paths: Iterable[str | Path]) -> str:
    """Returns some names, separated by commas."""
    names = [str(path) for path in paths]
    more = [f"{len(names) - _LONGEST} more"] if len(names) > _LONGEST else []
    return ", ".join([*names[:_LONGEST], *more])
