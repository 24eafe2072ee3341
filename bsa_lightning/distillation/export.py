"""The export of a student to a complete model folder: with codec, text encoder, pipeline index and model card."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bsa_lightning.common.errors import UserError
from bsa_lightning.common.files import atomic_write, refuse_existing
from bsa_lightning.models import provenance as origin
from bsa_lightning.models.loading import load_parts, read_provenance, read_sampling, teacher_of
from bsa_lightning.models.model_card import FACTS, model_card
from bsa_lightning.models.provenance import PROVENANCE
from bsa_lightning.models.registry import family_of


def export_student(student: Path, dst: Path, *, scores: Sequence[str] = ()) -> None:
    """Writes a model folder that the teacher's pipeline class opens, whole or not at all.

    Student and teacher are read before anything is written, so that a damaged file is never exported.

    Args:
        student: the folder of the student, in ``rounds/`` of a run.
        dst: the folder to write, which must not exist, and must lie neither in the student's folder nor in the
            teacher's.
        scores: the lines of a table of scores in Markdown, for the model card.

    Raises:
        UserError: if ``dst`` exists, the student is damaged, the teacher is missing or damaged, or the pipeline cannot
            sample the student.
    """
    refuse_existing(dst, setting="dst")
    provenance = read_provenance(student)
    if lacking := [name for name in ("teacher", "licence", *FACTS) if name not in provenance]:
        raise UserError(f"{student / PROVENANCE} does not say {lacking[0]}; name a student that lightning fit made")
    teacher, family = teacher_of(student), family_of(student)
    for folder in (student, teacher):
        if dst.resolve().is_relative_to(folder.resolve()):
            raise UserError(f"dst is {dst}, which lies in {folder}; name a folder outside of it")
    load_parts(student)
    known = read_provenance(teacher)
    # A path of this machine would mean nothing to others.
    provenance["teacher"] = origin.described(known, teacher)
    provenance |= origin.lineage_of_teacher(known)
    provenance |= {name: known[name] for name in ("seconds",) if name in known}
    with atomic_write(dst) as partial:
        partial.mkdir()
        pipeline = family.complete(student, teacher, partial, read_sampling(student))
        origin.write(partial, provenance)
        card = model_card(
            provenance,
            pipeline=pipeline,
            options=family.pipeline_options,
            length_argument=family.length_argument,
            notes=family.card_notes,
            scores=scores,
        )
        (partial / "README.md").write_text(card, encoding="utf-8")
