"""The interface of a family of models: how a folder of it is read, and how a student's complete folder is written."""

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

_LICENCES = ("license", "licence", "notice")
"""What the names of licence and notice files contain, in lower case."""


def copy_part(part: Path, out: Path) -> None:
    """Copies the model files of a part to the folder ``out``, with the content of links in place of the links."""
    for path in model_files(part):
        copy = out / path.relative_to(part)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)


def copy_licences(source: Path, out: Path) -> None:
    """Copies the licence and notice files of a folder, which some licences ask every copy and derivative to carry."""
    for path in sorted(source.iterdir()):
        is_licence = any(word in path.name.lower() for word in _LICENCES)
        if is_licence and path.is_file() and not (out / path.name).exists():
            shutil.copyfile(path, out / path.name)


class Family(ABC):
    """A family of models: how the three parts of a model folder are read, and how its models are sampled by default."""

    network: str = "unet"
    """The subfolder of the denoiser's weights: "unet" or "transformer"."""
    parts: tuple[str, ...] = ("vae", "text_encoder", "tokenizer")
    """The subfolders of a complete folder beside those of network and scheduler; a student's has none of them."""
    pipeline_options: str = ""
    """Further arguments of the pipeline's ``from_pretrained`` for a student's folder, as Python source."""
    length_argument: str = "audio_end_in_s"
    """The argument of the pipeline that is the length of a clip in seconds, for the model card."""
    card_notes: str = ""
    """Further sections of the model card of a student, in Markdown."""
    pipeline_file: Path | None = None
    """The file of the pipeline class, which a folder carries, if diffusers does not have this class.

    Its name is that of no other family's: diffusers runs all files of one name in one module of the process.
    """
    num_steps: int
    """The number of sampling steps of a model whose folder does not record it."""
    guidance_scale: float
    """The guidance scale of a model whose folder does not record it."""

    @abstractmethod
    def denoiser(self, folder: Path, *, dtype: torch.dtype, weights: bool = True) -> Denoiser:
        """Reads the network and the scheduler of a model or student folder.

        Args:
            folder: the folder.
            dtype: the type of the weights.
            weights: whether to read the weights; without them, the network has shapes but no memory.
        """

    @abstractmethod
    def conditioner(self, folder: Path) -> Conditioner:
        """Reads the text side of a complete model folder, in float32."""

    @abstractmethod
    def codec(self, folder: Path) -> Codec:
        """Reads the sound side of a complete model folder, in float32."""

    def complete(self, student: Path, teacher: Path, out: Path, sampling: SamplingSettings) -> str:
        """Writes the complete folder of a student: its network and scheduler, the teacher's other parts, and an index.

        Files that do not belong to a model are not copied, but for licences and notices.

        Args:
            student: the student's folder, with network and scheduler.
            teacher: the teacher's complete folder.
            out: the folder to write to.
            sampling: the settings with which the student is sampled.

        Returns:
            The name of the pipeline class that opens the folder.

        Raises:
            UserError: if the pipeline cannot sample the student, see :meth:`student_index`.
        """
        index = read_json(teacher / INDEX)
        parts = [name for name, value in index.items() if isinstance(value, list) and Path(name).name == name]
        parts = [name for name in parts if (teacher / name).is_dir()]
        index = self.student_index(index, sampling)
        for name in parts:
            copy_part((student if name in (self.network, "scheduler") else teacher) / name, out / name)
        self.carry_pipeline(out)
        copy_licences(teacher, out)
        (out / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
        return str(index["_class_name"])

    def carry_pipeline(self, out: Path) -> None:
        """Writes the file of the pipeline class of a complete folder, for users of diffusers alone, if there is one."""
        if self.pipeline_file is not None:
            shutil.copyfile(self.pipeline_file, out / self.pipeline_file.name)

    def student_index(self, index: Mapping[str, Any], sampling: SamplingSettings) -> dict[str, Any]:
        """The content of ``model_index.json`` for a student.

        Args:
            index: the content of the teacher's ``model_index.json``.
            sampling: the settings with which the student is sampled.

        Raises:
            UserError: if the pipeline class in the index cannot sample the student.
        """
        if sampling.guidance == "embedded":
            raise UserError(
                f"guidance is embedded, but {index['_class_name']} cannot pass a guidance scale to the network; export"
                " a student with guidance baked or outside, or sample this one with lightning generate"
            )
        return {**index, "scheduler": ["diffusers", "DDIMScheduler"]}
