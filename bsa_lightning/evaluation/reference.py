"""Reference sound to rows: kept on disk by content, so that it is embedded once and never taken for another."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor
from torch.nn.functional import pad

from bsa_lightning.cache import read_shared_tensors, write_shared_tensors
from bsa_lightning.data import audio
from bsa_lightning.data.captions import TangoManifest
from bsa_lightning.errors import UserError
from bsa_lightning.evaluation.embeddings import Embedding, Features, round_to_pcm16

_LOUDEST = 128.0
"""Peak from which on samples are integers that were written as floating-point numbers: 16 bit would cut them off."""
_READER = "mean of channels, resampled by torchaudio, 1"
"""What :func:`embed` does to sound before an embedding sees it; a change must change this."""


def embed(embedding: Embedding, waveform: Tensor, *, sample_rate: int) -> Features:
    """Features of (batch, samples) or (batch, channels, samples); of several channels their mean is embedded."""
    from torchaudio.functional import resample

    mono = waveform.mean(1) if waveform.ndim == 3 else waveform
    return embedding(resample(mono, sample_rate, embedding.sample_rate))


class RowCache:
    """Features of batches of sound that were embedded before, one file each.

    A file is named after the digest of all that decides what it holds: the samples as they were read (16 bit, so the
    list, the bytes, the reader, rate and length are all in it) and the embedding's fingerprint.

    Args:
        folder: for the files; none keeps nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def embed(self, embedding: Embedding, waveform: Tensor, *, sample_rate: int) -> Features:
        """As :func:`embed`, of a waveform that is rounded to 16 bit."""
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
    digest = hashlib.sha256(f"{_READER}\0{embedding.fingerprint}\0{sample_rate}\0{tuple(waveform.shape)}\0".encode())
    digest.update((waveform * 32768).short().cpu().numpy().tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class Reader:
    """How a file becomes a waveform; published evaluators differ in both."""

    channel_mean: bool = False
    remove_dc: bool = False

    def read(self, path: Path, *, sample_rate: int) -> Tensor:
        """The file as (samples,) at ``sample_rate``, rounded to 16 bit.

        Raises:
            UserError: if it cannot be read, or its samples are so large that they are no fractions of full scale.
        """
        channels = audio.num_channels_of(path) if self.channel_mean else 1
        wave = audio.read(path, sample_rate=sample_rate, num_channels=channels)
        wave = wave.mean(0) if wave.ndim == 2 else wave
        if (peak := float(wave.abs().max())) > _LOUDEST:
            raise UserError(f"{path} has samples of {peak:g}, where full scale is 1; divide them by their full scale")
        return round_to_pcm16(wave - wave.mean() if self.remove_dc else wave)


class TangoTestSet(TangoManifest):
    """Tango's list of test clips as published scores read it: at its own level, where training evens all out.

    Clips are mono; several channels are copies.

    Args:
        jsonl: the list.
        audio_dir: where the files lie here, in this folder or anywhere below it.
        max_missing: share of the clips, from 0 to 1, that may be missing on disk or unreadable.
        channel_mean: read the mean of a file's channels, as audioldm_eval does for FAD, and not the first.
        remove_dc: take away the mean of each clip, as it does for FD, KL and IS.
    """

    def __init__(
        self,
        jsonl: Path,
        audio_dir: Path,
        max_missing: float = 0.05,
        channel_mean: bool = False,
        remove_dc: bool = False,
    ) -> None:
        super().__init__(jsonl, audio_dir, max_missing, "mean" if channel_mean else "first")
        self.reader = Reader(channel_mean=channel_mean, remove_dc=remove_dc)
        self.reading = str(self.reader)

    def waveform(self, i: int, *, sample_rate: int, num_samples: int, num_channels: int = 1) -> Tensor:
        wave = self.reader.read(self.path(i), sample_rate=sample_rate)[:num_samples]
        wave = pad(wave, (0, num_samples - len(wave)))
        return wave if num_channels == 1 else wave.repeat(num_channels, 1)
