"""Reference sound to rows: kept on disk by content, so that it is embedded once and never taken for another."""

from __future__ import annotations

import hashlib
from pathlib import Path

from torch import Tensor

from bsa_lightning.cache import read_shared_tensors, write_shared_tensors
from bsa_lightning.data import audio
from bsa_lightning.data.captions import TangoManifest
from bsa_lightning.evaluation.embeddings import Embedding, Features

_CODE = "reading by name, 1"
"""What :func:`embed` does to sound; a change must change this."""


def embed(embedding: Embedding, waveform: Tensor, *, sample_rate: int) -> Features:
    """Features of (batch, samples) or (batch, channels, samples), as the embedding's reading makes it heard."""
    waveform = waveform[:, None] if waveform.ndim == 2 else waveform
    return embedding(embedding.reading(waveform, rate=sample_rate, sample_rate=embedding.sample_rate))


class RowCache:
    """Features of batches of sound that were embedded before, one file each.

    A file is named after the digest of all that decides what it holds: the samples, their rate, the embedding's
    fingerprint and its reading.

    Args:
        folder: for the files; ``None`` keeps nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def embed(self, embedding: Embedding, waveform: Tensor, *, sample_rate: int) -> Features:
        """As :func:`embed`."""
        if self.folder is None:
            return embed(embedding, waveform, sample_rate=sample_rate)
        path = self.folder / f"{_key(embedding, waveform, sample_rate)}.safetensors"
        found = read_shared_tensors(path, device=str(waveform.device))
        if found is None:
            features = embed(embedding, waveform, sample_rate=sample_rate)
            found = {name: value.contiguous() for name, value in features._asdict().items() if value is not None}
            write_shared_tensors(path, found)
        return Features(found["rows"], found.get("logits"))


def _key(embedding: Embedding, waveform: Tensor, sample_rate: int) -> str:
    said = [_CODE, embedding.reading.name, embedding.fingerprint, str(sample_rate), str(tuple(waveform.shape))]
    digest = hashlib.sha256("\0".join([*said, ""]).encode())
    digest.update(waveform.float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


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
