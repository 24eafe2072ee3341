"""``bsa_lightning.TangoPipeline``: the pipeline that model folders carry, with a comparison of files and digests."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from bsa_lightning.models.model_folder import ModelFolder
from bsa_lightning.models.tango import pipeline


class TangoPipeline(pipeline.TangoPipeline):
    """The pipeline of Tango and its students, for sound at 16 kHz.

    ``TangoPipeline.from_pretrained(folder)("A dog barks").audios[0]`` is a waveform. Its settings are those of
    :class:`bsa_lightning.models.tango.pipeline.TangoPipeline`.
    """

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **kwargs: Any) -> Self:  # noqa: ANN401 - theirs
        """Reads a pipeline as diffusers does, after a comparison of a folder's files with its provenance.

        Args:
            pretrained_model_name_or_path: a folder or a hub id.
            **kwargs: the arguments of diffusers' method.

        Raises:
            UserError: if a file of the folder was changed since it was written.
        """
        folder = Path(pretrained_model_name_or_path)
        if folder.is_dir():
            ModelFolder(folder).verify()
        opened: Self = super().from_pretrained(pretrained_model_name_or_path, **kwargs)
        return opened
