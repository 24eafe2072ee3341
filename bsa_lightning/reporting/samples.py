"""The wav files of run folders, by caption and system."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bsa_lightning.common.errors import UserError
from bsa_lightning.common.files import read_json
from bsa_lightning.evaluation.system_name import DDIM_NAME, SystemName
from bsa_lightning.reporting.repeats import label, read_config, readable, section
from bsa_lightning.reporting.results import REFERENCE, Result

CAPTIONS = "captions.json"
"""The file in ``samples/`` with the caption of each file name; without it, captions are derived from file names."""
_SLUG_LENGTH = 60
_RECORDED = (
    "AudioCapsManifest",
    "CaptionedFolder",
    "ClipList",
    "HuggingFaceDataset",
    "TangoManifest",
    "TangoTestSet",
    "WebDataset",
)
_ORIGINS = {
    **dict.fromkeys(_RECORDED, "recorded"),
    "Soundscapes": "synthesised",
    "PreparedSound": "decoded from prepared latents",
}
"""What the reference is, by the class of the held-out clips."""


@dataclass
class SampledSystem:
    """A system with its sounds.

    Args:
        id: the name of the folder, with that of the run if runs differ.
        name: the name for readers.
        detail: the number of network evaluations, for readers.
        sounds: the wav file of each caption.
        shown: whether a page shows the system at first.
    """

    id: str
    name: str
    detail: str
    sounds: dict[str, Path] = field(default_factory=dict)
    shown: bool = True


def read_samples(runs: Sequence[Path], results: Sequence[Result]) -> tuple[list[str], list[SampledSystem]]:
    """Returns the captions and the systems: the reference, the teacher, then students, many steps before few.

    Folders of several runs with equal files are one system.
    """
    captions: dict[str, None] = {}
    versions: dict[str, list[tuple[Path, dict[str, Path]]]] = {}
    for run in runs:
        folders = sorted((path for path in (run / "samples").glob("*") if path.is_dir()), key=_order)
        titles = _titles(run / "samples", folders)
        for folder in folders:
            sounds = {titles[path.name]: path for path in sorted(folder.glob("*.wav"))}
            captions |= dict.fromkeys(sounds)
            known = versions.setdefault(folder.name, [])
            if sounds and not any(_same(sounds, other) for _, other in known):
                known.append((run, sounds))
    is_guided = any(name.model == "teacher" and not name.unguided for name in map(SystemName.from_folder, versions))
    systems = [
        _system(
            name, sounds, results, run=label([run]) if len(known) > 1 else "", is_guided=is_guided, origin=_origin(run)
        )
        for name, known in versions.items()
        for run, sounds in known
    ]
    return list(captions), sorted(systems, key=lambda system: _order(Path(system.id.partition("@")[0])))


def _origin(run: Path) -> str:
    """Returns where the reference of a run is from, by the class of its held-out clips; empty if that is not known."""
    name = section(read_config(run), run, "scoring", "clips").get("class_path")
    return _ORIGINS.get(name.rpartition(".")[2], "") if isinstance(name, str) else ""


def friendly(folder: str) -> str:
    """Returns the name of a system for readers, for example "Student (bsa), 1 step" for ``student-bsa-1steps``."""
    system = SystemName.from_folder(readable(folder))
    steps = f", {system.num_steps} step{'s' if system.num_steps > 1 else ''}" if system.num_steps else ""
    return system.title + steps


def _titles(samples: Path, folders: Sequence[Path]) -> dict[str, str]:
    """Returns the caption of each file name, with a number if an earlier clip has the same caption."""
    captions = read_json(samples / CAPTIONS) if (samples / CAPTIONS).is_file() else {}
    titles: dict[str, str] = {}
    for name in sorted({path.name for folder in folders for path in folder.glob("*.wav")}):
        caption = captions.get(name, _caption(name))
        if not isinstance(caption, str) or not caption.strip():
            raise UserError(f"{samples / CAPTIONS} has {caption!r} as the caption of {name}; correct it")
        caption = readable(" ".join(caption.split()))
        earlier = sum(title == caption or title.startswith(f"{caption} (clip ") for title in titles.values())
        titles[name] = f"{caption} (clip {earlier + 1})" if earlier else caption
    return titles


def _caption(name: str) -> str:
    """Returns the caption "A dog barks" for ``00-a-dog-barks.wav``; long ones, which are cut, end in an ellipsis."""
    slug = re.sub(r"^\d+-", "", name.removesuffix(".wav")) or name
    return slug.replace("-", " ").capitalize() + ("…" if len(slug) >= _SLUG_LENGTH - 1 else "")


def _same(sounds: dict[str, Path], others: dict[str, Path]) -> bool:
    return sounds.keys() == others.keys() and all(
        path.read_bytes() == others[caption].read_bytes() for caption, path in sounds.items()
    )


def _order(folder: Path) -> tuple[int, str, int]:
    system = SystemName.from_folder(folder.name)
    kinds = (REFERENCE, "teacher", "student")
    return kinds.index(system.model) if system.model in kinds else len(kinds), system.title, -system.num_steps


def _system(
    folder: str, sounds: dict[str, Path], results: Sequence[Result], *, run: str, is_guided: bool, origin: str
) -> SampledSystem:
    system = SystemName.from_folder(folder)
    name = friendly(folder)
    counted = {result.nfe for result in results if result.system == system and system.num_steps}
    if system.model == REFERENCE:
        detail = origin
    else:
        detail = f"NFE {' or '.join(map(str, sorted(counted)))}" if counted else ""
    folder = readable(folder)
    # Rivals are many rows, which are hidden at first. The teacher of a ladder without guidance is shown, though.
    shown = (system.sampler == DDIM_NAME and not (is_guided and system.unguided)) or system.model == "student"
    return SampledSystem(
        f"{folder}@{run}" if run else folder, f"{name}, {run}" if run else name, detail, sounds, shown=shown
    )
