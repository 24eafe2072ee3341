"""Sound to rows, with a cache on disk whose files are named by content, so that the same sound is embedded once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from bsa_lightning.common.cache import read_shared_tensors, write_shared_tensors
from bsa_lightning.data import audio
from bsa_lightning.data.captions import TangoManifest
from bsa_lightning.evaluation.embeddings.base import Embedding, Features

_CODE = "reading by name, 1"
"""The version of :func:`embed`, which must change whenever that function does."""


def embed(embedding: Embedding, waveform: Tensor, *, sample_rate: int) -> Features:
    """Returns the features of sound, through the embedding's reading.

    Args:
        embedding: the embedding.
        waveform: the sound, (batch, samples) or (batch, channels, samples), in [-1, 1].
        sample_rate: the sample rate of the sound, in Hz.
    """
    waveform = waveform[:, None] if waveform.ndim == 2 else waveform
    return embedding(embedding.reading(waveform, rate=sample_rate, sample_rate=embedding.sample_rate))


class RowCache:
    """A cache of features on disk, with a file for each batch.

    A file is named after the digest of everything that decides its content: the embedding's fingerprint, its reading,
    and the samples with their rate, or the latents with the model that decodes them.

    Args:
        folder: the folder of the files; ``None`` keeps nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def embed(self, embedding: Embedding, waveform: Tensor, *, sample_rate: int) -> Features:
        """Returns what :func:`embed` returns, from the cache if it is there."""
        return self.get(
            lambda: embed(embedding, waveform, sample_rate=sample_rate), embedding, f"{sample_rate} Hz", waveform
        )

    def get(self, make: Callable[[], Features], embedding: Embedding, kind: str, content: Tensor) -> Features:
        """Returns what ``make`` returns, from the cache if it is there.

        Args:
            make: computes the features.
            embedding: the embedding that ``make`` uses.
            kind: a text on everything else that decides the features, such as the sample rate.
            content: the samples or latents that ``make`` computes the features from.
        """
        if self.folder is None:
            return make()
        said = [_CODE, embedding.reading.name, embedding.fingerprint, kind, str(tuple(content.shape))]
        digest = hashlib.sha256("\0".join([*said, ""]).encode())
        digest.update(content.float().cpu().contiguous().numpy().tobytes())
        path = self.folder / f"{digest.hexdigest()}.safetensors"
        found = read_shared_tensors(path, device=str(content.device))
        if found is None:
            found = {name: value.contiguous() for name, value in make()._asdict().items() if value is not None}
            write_shared_tensors(path, found)
        return Features(found["rows"], found.get("logits"))


class TangoTestSet(TangoManifest):
    """Tango's list of test clips, with the recordings at their own level and length, as published scores read them.

    For training both are normalised, which published evaluators do not do. The ``reading`` of an embedding decides how
    it hears a recording.

    Args:
        jsonl: the path of the list, a file of JSON lines.
        audio_dir: the folder that holds the audio files, directly or in subfolders.
        max_missing: the share of the clips, from 0 to 1, that may be missing on disk or unreadable.
    """

    def __init__(self, jsonl: Path, audio_dir: Path, max_missing: float = 0.05) -> None:
        super().__init__(jsonl, audio_dir, max_missing)
        self.variant = "as recorded"

    def recorded(self, i: int) -> tuple[Tensor, int]:
        return audio.recorded(self.source(i))
