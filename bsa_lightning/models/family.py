"""One kind of model folder: how it is read, and how a student's is made whole."""

from __future__ import annotations

import json
import shutil
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from bsa_lightning.common.errors import UserError
from bsa_lightning.common.files import read_json
from bsa_lightning.models.base import Codec, Conditioner, Denoiser
from bsa_lightning.models.hashing import model_files
from bsa_lightning.models.provenance import INDEX
from bsa_lightning.models.sampling_settings import SamplingSettings


def copy_part(part: Path, out: Path) -> None:
    """Copies the model files of a part, and links as what they lead to."""
    for path in model_files(part):
        copy = out / path.relative_to(part)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)


class Family(ABC):
    """One kind of model folder: how its three seams are read, and how such a model is sampled if it does not say.

    ``network`` is the subfolder of the denoiser's weights.
    """

    network: str = "unet"
    pipeline_options: str = ""
    """What ``from_pretrained`` of the pipeline class needs beside a student's folder, as written in Python."""
    num_steps: int
    guidance_scale: float

    @abstractmethod
    def denoiser(self, folder: Path, *, dtype: torch.dtype, weights: bool = True) -> Denoiser:
        """Reads ``network`` and scheduler of a model or student folder; without ``weights``, their shapes alone."""

    @abstractmethod
    def conditioner(self, folder: Path) -> Conditioner:
        """Reads the text side of a whole model folder, in float32."""

    @abstractmethod
    def codec(self, folder: Path) -> Codec:
        """Reads the sound side of a whole model folder, in float32."""

    def complete(self, student: Path, teacher: Path, out: Path, sampling: SamplingSettings) -> str:
        """Writes a student's whole folder: its network and scheduler, all else from the teacher's, and an index.

        Files that belong to no model stay behind.

        Returns:
            The pipeline class that opens it.

        Raises:
            UserError: as :meth:`student_index`.
        """
        index = read_json(teacher / INDEX)
        parts = [name for name, value in index.items() if isinstance(value, list) and Path(name).name == name]
        parts = [name for name in parts if (teacher / name).is_dir()]
        index = self.student_index(index, sampling)
        for name in parts:
            copy_part((student if name in (self.network, "scheduler") else teacher) / name, out / name)
        (out / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
        return str(index["_class_name"])

    def student_index(self, index: Mapping[str, Any], sampling: SamplingSettings) -> dict[str, Any]:
        """``model_index.json`` of a whole folder with a student in it, from ``index``, its teacher's.

        Raises:
            UserError: if the pipeline that opens such folders cannot sample the student.
        """
        if sampling.guidance == "embedded":
            raise UserError(
                f"guidance is embedded, but {index['_class_name']} cannot hand the network a guidance scale; export a"
                " student with guidance baked or outside, or sample this one with lightning generate"
            )
        return {**index, "scheduler": ["diffusers", "DDIMScheduler"]}
