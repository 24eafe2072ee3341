"""Sound to rows: kept on disk by content, so that it is embedded once and never taken for another."""

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
"""What :func:`embed` does to sound; a change must change this."""


def embed(embedding: Embedding, waveform: Tensor, *, sample_rate: int) -> Features:
    """Features of (batch, samples) or (batch, channels, samples), as the embedding's reading makes it heard."""
    waveform = waveform[:, None] if waveform.ndim == 2 else waveform
    return embedding(embedding.reading(waveform, rate=sample_rate, sample_rate=embedding.sample_rate))


class RowCache:
    """Features of batches that were embedded before, one file each.

    A file is named after the digest of all that decides what it holds: the embedding's fingerprint, its reading, and
    the samples with their rate or the latents with the model that decodes them.

    Args:
        folder: for the files; ``None`` keeps nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def embed(self, embedding: Embedding, waveform: Tensor, *, sample_rate: int) -> Features:
        """As :func:`embed`."""
        return self.get(
            lambda: embed(embedding, waveform, sample_rate=sample_rate), embedding, f"{sample_rate} Hz", waveform
        )

    def get(self, make: Callable[[], Features], embedding: Embedding, kind: str, content: Tensor) -> Features:
        """What ``make`` gives, or gave when it was last asked the same.

        Args:
            make: embeds what ``content`` decides.
            embedding: that it uses.
            kind: what else decides the features, such as the rate of samples.
            content: samples or latents.
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
    """Tango's list of test clips as published scores read it: the recordings, at their own level and length.

    Training evens both out; scores in print were not measured so. What an embedding hears of a recording, its
    ``reading`` says.

    Args:
        jsonl: the list.
        audio_dir: where the files lie here, in this folder or anywhere below it.
        max_missing: share of the clips, from 0 to 1, that may be missing on disk or unreadable.
    """

    def __init__(self, jsonl: Path, audio_dir: Path, max_missing: float = 0.05) -> None:
        super().__init__(jsonl, audio_dir, max_missing)
        self.variant = "as recorded"

    def recorded(self, i: int) -> tuple[Tensor, int]:
        return audio.recorded(self.path(i))
