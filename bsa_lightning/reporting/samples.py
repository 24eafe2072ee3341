"""The kept sounds of run folders, put in order: the same captions across systems."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bsa_lightning.files import read_json
from bsa_lightning.reporting.run_folder import REFERENCE, Result
from bsa_lightning.reporting.training import label

CAPTIONS = "captions.json"
"""In ``samples/``, if a run wrote it: file name -> caption. Without it captions are read off the file names."""
_SLUG_LENGTH = 60


@dataclass
class System:
    """What made some of the sounds. ``id`` is the folder's name, with the run's where runs differ."""

    id: str
    name: str
    detail: str
    sounds: dict[str, Path] = field(default_factory=dict)
    """By caption."""


def read_samples(runs: Sequence[Path], results: Sequence[Result]) -> tuple[list[str], list[System]]:
    """Captions, and the systems that sound them: the reference, the teacher, then students, many steps first.

    A folder that several runs hold with the same bytes is one system.
    """
    captions: dict[str, None] = {}
    versions: dict[str, list[tuple[Path, dict[str, Path]]]] = {}
    for run in runs:
        for folder in sorted((path for path in (run / "samples").glob("*") if path.is_dir()), key=_order):
            sounds = _sounds(folder)
            captions |= dict.fromkeys(sounds)
            known = versions.setdefault(folder.name, [])
            if sounds and not any(_same(sounds, other) for _, other in known):
                known.append((run, sounds))
    systems = [
        _system(name, sounds, results, run=label([run]) if len(known) > 1 else "")
        for name, known in versions.items()
        for run, sounds in known
    ]
    return list(captions), sorted(systems, key=lambda system: _order(Path(system.id.partition("@")[0])))


def friendly(folder: str) -> str:
    """``student-bsa-1steps`` as a reader would say it: "Student (bsa), 1 step"."""
    model, weighting, num_steps = _parts(folder)
    name = model.capitalize() + (f" ({weighting})" if weighting else "")
    return name + (f", {num_steps} step{'s' if num_steps > 1 else ''}" if num_steps else "")


def _sounds(folder: Path) -> dict[str, Path]:
    written = folder.parent / CAPTIONS
    captions = read_json(written) if written.is_file() else {}
    return {str(captions.get(path.name, _caption(path))): path for path in sorted(folder.glob("*.wav"))}


def _caption(path: Path) -> str:
    """``00-a-dog-barks.wav`` was "A dog barks"; a caption that was cut ends in an ellipsis."""
    slug = re.sub(r"^\d+-", "", path.stem)
    return slug.replace("-", " ").capitalize() + ("…" if len(slug) >= _SLUG_LENGTH - 1 else "")


def _same(sounds: dict[str, Path], others: dict[str, Path]) -> bool:
    return sounds.keys() == others.keys() and all(
        path.read_bytes() == others[caption].read_bytes() for caption, path in sounds.items()
    )


def _parts(folder: str) -> tuple[str, str, int]:
    """Model, weighting and steps, for example of ``student-min-snr-8steps``."""
    if found := re.fullmatch(r"(.+)-(\d+)steps", folder):
        model, weighting = found[1], ""
        if model.startswith("student-"):
            model, _, weighting = model.partition("-")
        return model, weighting, int(found[2])
    return folder, "", 0


def _order(folder: Path) -> tuple[int, str, str, int]:
    model, weighting, num_steps = _parts(folder.name)
    kinds = (REFERENCE, "teacher", "student")
    return kinds.index(model) if model in kinds else len(kinds), model, weighting, -num_steps


def _system(folder: str, sounds: dict[str, Path], results: Sequence[Result], *, run: str) -> System:
    model, weighting, num_steps = _parts(folder)
    name = friendly(folder)
    counted = {
        r.nfe for r in results if (r.model, r.weighting, r.num_steps) == (model, weighting, num_steps) and num_steps
    }
    if model == REFERENCE:
        detail = "recorded"
    else:
        detail = f"NFE {' or '.join(map(str, sorted(counted)))}" if counted else ""
    return System(f"{folder}@{run}" if run else folder, f"{name}, {run}" if run else name, detail, sounds)
