"""A student's folder made whole: with its teacher's codec and text encoder, an index and a model card."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from bsa_lightning.errors import UserError
from bsa_lightning.files import whole
from bsa_lightning.teachers.folder import (
    PROVENANCE,
    family_of,
    folder_sha256,
    read_provenance,
    read_sampling,
    resolve_folder,
)
from bsa_lightning.teachers.model_card import model_card


def export_student(student: Path, dst: Path, *, scores: Sequence[str] = ()) -> None:
    """Writes ``dst``, which the teacher's pipeline class opens; whole or not at all.

    Args:
        student: a folder of ``rounds/`` in a run.
        dst: must not exist yet.
        scores: lines of a table for the model card.

    Raises:
        UserError: if ``dst`` exists, the teacher is gone, or the pipeline could not sample the student.
    """
    if dst.exists():
        raise UserError(f"{dst} exists already; name another folder, or delete it")
    provenance = read_provenance(student)
    teacher, family = resolve_folder(provenance["teacher"]), family_of(student)
    origin = read_provenance(teacher)
    # A path of this machine means nothing elsewhere.
    provenance["teacher"] = origin.get("source", origin.get("name", teacher.name))
    provenance |= {name: origin[name] for name in ("seconds",) if name in origin}
    with whole(dst) as partial:
        partial.mkdir()
        pipeline = family.complete(student, teacher, partial, read_sampling(student))
        provenance["sha256"] = folder_sha256(partial)
        (partial / PROVENANCE).write_text(json.dumps(provenance, indent=2) + "\n")
        card = model_card(provenance, pipeline=pipeline, options=family.pipeline_options, scores=scores)
        (partial / "README.md").write_text(card)
