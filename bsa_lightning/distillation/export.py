"""The export of a student: to a complete model folder with a model card, or of its adapter alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bsa_lightning.common.errors import UserError
from bsa_lightning.common.files import atomic_write, read_json, refuse_existing
from bsa_lightning.models import provenance as origin
from bsa_lightning.models.family import copy_licences, copy_part
from bsa_lightning.models.hashing import sha256_of
from bsa_lightning.models.loading import load_parts, read_provenance, read_sampling, teacher_of
from bsa_lightning.models.lora import ADAPTER, has_loader
from bsa_lightning.models.model_card import FACTS, adapter_usage, model_card
from bsa_lightning.models.provenance import INDEX, PROVENANCE
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
    provenance, teacher = _known(student, dst)
    family = family_of(student)
    load_parts(student)
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


def export_adapter(student: Path, dst: Path, *, scores: Sequence[str] = ()) -> None:
    """Writes the adapter of a student alone, with its scheduler and a card that says how its teacher takes it.

    Args:
        student: the folder of the student, in ``rounds/`` of a run.
        dst: the folder to write, as for :func:`export_student`.
        scores: the lines of a table of scores in Markdown, for the model card.

    Raises:
        UserError: as :func:`export_student`, or if the student has no adapter, or one that is damaged or not all of it.
    """
    provenance, teacher = _known(student, dst)
    if "adapter" not in provenance:
        raise UserError(
            f"adapter is true, but {student} was trained in full, without model.adapter; leave it out to export the"
            " whole student"
        )
    if provenance["guidance"] == "embedded":
        raise UserError(
            f"adapter is true, but the guidance of {student} is embedded, whose input has layers that are no part of an"
            " adapter; leave it out to export the whole student"
        )
    if sha256_of(student / ADAPTER) != provenance["adapter"]["sha256"]:
        raise UserError(f"{student / ADAPTER} is damaged or was changed; copy it again, or export the whole student")
    network = load_parts(student).denoiser.network
    family = family_of(student)
    with atomic_write(dst) as partial:
        shutil.copytree(student / ADAPTER, partial)
        copy_part(student / "scheduler", partial / "scheduler")
        copy_licences(teacher, partial)
        provenance = {name: value for name, value in provenance.items() if name != "sha256"}  # that of the network
        (partial / PROVENANCE).write_text(json.dumps(provenance, indent=2) + "\n", encoding="utf-8")
        usage = adapter_usage(
            provenance,
            pipeline=str(read_json(teacher / INDEX)["_class_name"]),
            options=family.pipeline_options,
            network=family.network,
            scheduler=str(read_json(student / "scheduler" / "scheduler_config.json")["_class_name"]),
            has_loader=has_loader(network),
        )
        card = model_card(provenance, pipeline="", usage=usage, notes=family.card_notes, scores=scores)
        (partial / "README.md").write_text(card, encoding="utf-8")


def _known(student: Path, dst: Path) -> tuple[dict[str, Any], Path]:
    """Returns the provenance of a student for others, and the folder of its teacher.

    Raises:
        UserError: if an entry is missing, the teacher is missing, or ``dst`` exists or lies in one of the folders.
    """
    refuse_existing(dst, setting="dst")
    provenance = read_provenance(student)
    if lacking := [name for name in ("teacher", "licence", *FACTS) if name not in provenance]:
        raise UserError(f"{student / PROVENANCE} does not say {lacking[0]}; name a student that lightning fit made")
    teacher = teacher_of(student)
    for folder in (student, teacher):
        if dst.resolve().is_relative_to(folder.resolve()):
            raise UserError(f"dst is {dst}, which lies in {folder}; name a folder outside of it")
    known = read_provenance(teacher)
    # A path of this machine would mean nothing to others.
    provenance["teacher"] = origin.described(known, teacher)
    provenance |= origin.lineage_of_teacher(known)
    return provenance | {name: known[name] for name in ("seconds",) if name in known}, teacher
