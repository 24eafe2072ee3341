"""The sound of prepared latents as clips, such as a teacher's own sound, which its students are scored against."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

import torch
from torch import Tensor

from bsa_lightning.common.errors import UserError
from bsa_lightning.data.clips import Clips
from bsa_lightning.data.latents import LatentReader
from bsa_lightning.models.base import Codec, device_of
from bsa_lightning.models.hashing import sha256_of_network
from bsa_lightning.models.loading import load_codec


class PreparedSound(Clips):
    """What the teacher's codec makes of the latents of a prepared store, without the noise of their posteriors.

    The sound has the level that the codec gives it, as generated sound has. The store is opened when it is first
    needed, so that a run may prepare it (as its ``data.val``) before it is scored against it.

    Args:
        folder: the folder of the store.
        teacher: the model whose codec decodes: a folder, a hub id, or "tiny" for the built-in teacher.
    """

    def __init__(self, folder: Path, teacher: str = "tiny") -> None:
        self.folder = Path(folder)
        self.teacher = teacher

    @functools.cached_property
    def _reader(self) -> LatentReader:
        return LatentReader(self.folder)

    @functools.cached_property
    def _codec(self) -> Codec:
        codec = load_codec(self.teacher).to("cuda" if torch.cuda.is_available() else "cpu")
        if codec.fingerprint != self._reader.index["codec"]:
            raise UserError(
                f'{self.folder} was prepared with another codec than that of teacher "{self.teacher}"; name the teacher'
                " that it was prepared with"
            )
        return codec

    def __len__(self) -> int:
        return len(self._reader)

    def id(self, i: int) -> str:
        return str(i)

    def captions(self, i: int) -> list[str]:
        return self._reader[i].captions

    @torch.no_grad()
    def waveform(self, i: int, *, sample_rate: int, num_samples: int, num_channels: int = 1) -> Tensor:
        codec = self._codec
        ours = (codec.num_samples, codec.sample_rate, codec.num_channels)
        if (num_samples, sample_rate, num_channels) != ours:
            raise UserError(
                f"{self.folder} decodes to clips of {ours[0]} samples at {ours[1]} Hz and {ours[2]} channels, where"
                f" {num_samples} at {sample_rate} Hz and {num_channels} are needed; use the teacher that prepared it"
            )
        return codec.decode(self._reader[i].mean[None].to(device_of(codec)))[0].cpu()

    def fingerprint(self) -> str:
        decoder = f"{self._codec.fingerprint} {sha256_of_network(self._codec)}"
        decoded = f"{self._reader.index['clips']} decoded by {decoder}"
        return hashlib.sha256(decoded.encode()).hexdigest()
