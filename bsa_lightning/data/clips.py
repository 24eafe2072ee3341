"""Captioned clips: the one thing that `prepare` and the evaluation ask of a data set."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod

from torch import Tensor


class Clips(ABC):
    """A fixed, ordered set of sounds with captions."""

    @abstractmethod
    def __len__(self) -> int:
        """How many clips."""

    @abstractmethod
    def id(self, i: int) -> str:
        """A name that tells clip ``i`` from every other."""

    @abstractmethod
    def captions(self, i: int) -> list[str]:
        """The captions of clip ``i``, one or more."""

    @abstractmethod
    def waveform(self, i: int, *, sample_rate: int, num_samples: int, num_channels: int = 1) -> Tensor:
        """Clip ``i`` as float32, normalised as Tango's training audio is, cut or zero-padded.

        One channel is (num_samples,), several are (num_channels, num_samples).
        """

    def fingerprint(self) -> str:
        """Digest of ids and captions: tells one clip list from another without reading audio."""
        digest = hashlib.sha256()
        for i in range(len(self)):
            digest.update("\0".join([self.id(i), *self.captions(i), ""]).encode())
        return digest.hexdigest()
