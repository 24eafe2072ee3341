"""The folder of a finished student: network and scheduler in diffusers' layout, and its provenance."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bsa_lightning.common.files import atomic_write
from bsa_lightning.diffusion.weighting import Weighting
from bsa_lightning.distillation.guidance_modes import GuidanceMode
from bsa_lightning.distillation.methods import Method
from bsa_lightning.distillation.rounds import Round
from bsa_lightning.models.base import Denoiser
from bsa_lightning.models.hashing import sha256_of
from bsa_lightning.models.loading import folder_sha256, read_licence, read_provenance
from bsa_lightning.models.lora import ADAPTER, write_adapter
from bsa_lightning.models.model_card import student_note
from bsa_lightning.models.provenance import PROVENANCE, lineage_of_teacher
from bsa_lightning.models.registry import BUILT_IN, pipeline_name, resolve_folder


def save_student(
    student: Denoiser,
    folder: Path,
    *,
    round_: Round,
    teacher: str,
    method: Method,
    weighting: Weighting,
    guidance: GuidanceMode,
    updates: int,
    budget: Mapping[str, Any],
    data_fingerprint: str,
    sampled_latents: Mapping[str, Any] | None = None,
    adapted: Denoiser | None = None,
    merged: Path | None = None,
) -> None:
    """Writes network, scheduler and ``provenance.json`` of a student, whole or not at all; and its adapter if any.

    Args:
        student: the network of the student.
        folder: the folder to write.
        round_: the round that has made the student.
        teacher: the model folder of the ladder's first teacher, or "tiny".
        method: the method of distillation.
        weighting: the weighting that the student was trained with.
        guidance: the mode of guidance of the ladder.
        updates: the number of optimizer steps of the round.
        budget: further entries, with the limits and decisions of an adaptive round; empty for a fixed one.
        data_fingerprint: the digest of the clips that the student was trained on.
        sampled_latents: how a teacher sampled the latents of these clips; ``None`` for latents of recorded sound.
        adapted: the network with the adapters that ``student`` has merged; ``None`` if it was trained in full.
        merged: the folder of the earlier student whose adapters are merged into the frozen weights of ``adapted``;
            ``None`` if these are the first teacher's. The adapter that is written is relative to the first teacher.
    """
    provenance = {
        "pipeline": pipeline_name(teacher),
        "teacher": teacher if teacher in BUILT_IN else str(resolve_folder(teacher).resolve()),
        "teacher_sha256": folder_sha256(teacher),
        "licence": read_licence(teacher),
        "method": method.name,
        "weighting": weighting.name,
        "weighting_parameters": weighting.parameters,
        "round": round_.index + 1,
        "updates": updates,
        **budget,
        "num_steps": round_.num_steps,
        "guidance": guidance.name,
        "guidance_scale": guidance.scale,
        "guidance_range": guidance.range,
        "data": data_fingerprint,
        **lineage_of_teacher(read_provenance(teacher)),
        **({} if sampled_latents is None else {"sampled_latents": dict(sampled_latents)}),
    }
    with atomic_write(folder, durable=True) as partial:  # as durable as the checkpoint that refers to the folder
        student.save(partial)
        if adapted is not None:
            earlier = None if merged is None else merged / ADAPTER
            written = write_adapter(adapted, partial / ADAPTER, earlier=earlier)
            provenance["adapter"] = {**written, "sha256": sha256_of(partial / ADAPTER)}
        provenance["sha256"] = folder_sha256(partial)
        (partial / PROVENANCE).write_text(json.dumps(provenance, indent=2) + "\n", encoding="utf-8")
        (partial / "README.md").write_text(student_note(provenance), encoding="utf-8")
