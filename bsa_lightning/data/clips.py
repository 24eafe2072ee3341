"""Captioned clips: the one thing that `prepare` and the evaluation ask of a data set."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from torch import Tensor

from bsa_lightning.common.errors import UserError
from bsa_lightning.data.audio import Recording


class Clips(ABC):
    """A fixed, ordered set of sounds with captions."""

    variant: str = ""
    """What else than its name decides the sound of a clip, such as which channels are read; part of the fingerprint."""

    missing: Sequence[str] = ()
    """Clips of a list that are not there, by the names that it has for them."""

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

    def recorded(self, i: int) -> tuple[Tensor, int] | None:
        """Clip ``i`` as it was recorded, for scores: float32 (channels, samples), and its samples a second.

        ``None``, where not the recording but :meth:`waveform` is what generated sound is compared with.
        """
        del i
        return None

    def recording(self, i: int, *, seconds: float, num_channels: int = 1) -> Recording | None:
        """What can be said about the file behind clip ``i``, read whole; ``None`` for sound that is made.

        Args:
            i: the clip.
            seconds: length that clips are cut to.
            num_channels: how many channels a clip has.

        Raises:
            UserError: if the file cannot be read.
        """
        del i, seconds, num_channels
        return None

    def spare(self, unreadable: Mapping[str, str]) -> None:
        """Refuses to go on without the clips that could not be read, if they are more than may be missing.

        Args:
            unreadable: the reason for each, by id.

        Raises:
            UserError: naming some of them, and how many they are.
        """
        if unreadable:
            raise UserError(next(iter(unreadable.values())))

    def fingerprint(self) -> str:
        """Digest of ids, captions and ``variant``: tells one clip list from another without reading audio."""
        digest = hashlib.sha256()
        for i in range(len(self)):
            digest.update("\0".join([self.id(i), *self.captions(i), ""]).encode())
        if not self.variant:
            return digest.hexdigest()
        return hashlib.sha256(f"{digest.hexdigest()} {self.variant}".encode()).hexdigest()


class Selected(Clips):
    """Some clips of others.

    Args:
        clips: the others.
        places: which of them, in order.
    """

    def __init__(self, clips: Clips, places: Sequence[int]) -> None:
        self.clips, self.places = clips, list(places)
        self.variant = clips.variant

    def __len__(self) -> int:
        return len(self.places)

    def id(self, i: int) -> str:
        return self.clips.id(self.places[i])

    def captions(self, i: int) -> list[str]:
        return self.clips.captions(self.places[i])

    def waveform(self, i: int, *, sample_rate: int, num_samples: int, num_channels: int = 1) -> Tensor:
        return self.clips.waveform(
            self.places[i], sample_rate=sample_rate, num_samples=num_samples, num_channels=num_channels
        )
