"""The interface of data sets of captioned clips, which ``prepare`` and the evaluation read."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from bsa_lightning.common.errors import UserError
from bsa_lightning.data.recording import Recording
from bsa_lightning.models.base import Codec, Conditioner, Posterior, device_of

Encoder: TypeAlias = Callable[[Sequence[int]], Posterior]
"""A function from the places of clips in their list to the posterior over their latents, on the codec's device."""


class Clips(ABC):
    """A fixed, ordered set of captioned clips."""

    variant: str = ""
    """Settings besides its id that the sound of a clip depends on, such as the channels; part of the fingerprint."""

    missing: Sequence[str] = ()
    """The names of listed clips that are missing on the disk; they are not among the clips."""

    @property
    def sampling(self) -> Mapping[str, Any]:
        """How the latents were sampled, as JSON has it, for clips without sound; empty for recorded sound.

        It is part of the fingerprint, of the store that ``prepare`` writes, and of the provenance of its students.
        """
        return {}

    @abstractmethod
    def __len__(self) -> int:
        """The number of clips."""

    @abstractmethod
    def id(self, i: int) -> str:
        """The id of clip ``i``, which no other clip has."""

    @abstractmethod
    def captions(self, i: int) -> list[str]:
        """The captions of clip ``i``, at least one."""

    @abstractmethod
    def waveform(self, i: int, *, sample_rate: int, num_samples: int, num_channels: int = 1) -> Tensor:
        """The waveform of clip ``i`` in float32, normalised as in Tango's training, cut or zero-padded at its end.

        Args:
            i: the place of the clip, from 0.
            sample_rate: the sample rate in Hz.
            num_samples: the number of samples per channel.
            num_channels: the number of channels.

        Returns:
            A tensor (num_samples,) for one channel, else (num_channels, num_samples).
        """

    def encoder(self, codec: Codec, conditioner: Conditioner) -> Encoder:
        """The function that makes the latents of clips: by default, the codec encodes their waveforms.

        Args:
            codec: the codec of the store.
            conditioner: the text encoder of the store, for clips whose latents are sampled.
        """
        del conditioner
        size = {"sample_rate": codec.sample_rate, "num_samples": codec.num_samples}

        def encode(places: Sequence[int]) -> Posterior:
            waves = [self.waveform(i, **size, num_channels=codec.num_channels) for i in places]
            return codec.encode(torch.stack(waves).to(device_of(codec)))

        return encode

    def recorded(self, i: int) -> tuple[Tensor, int] | None:
        """The original recording of clip ``i``, (channels, samples) in float32, and its sample rate in Hz.

        ``None`` if scores compare generated sound with :meth:`waveform` rather than with the recording.
        """
        del i
        return None

    def inspect(self, i: int, *, seconds: float, num_channels: int = 1) -> Recording | None:
        """The findings about the file of clip ``i``, which is read to its end; ``None`` for a clip without a file.

        Args:
            i: the place of the clip, from 0.
            seconds: the length that clips are cut to, in seconds.
            num_channels: the number of channels of a clip.

        Raises:
            UserError: if the file cannot be read.
        """
        del i, seconds, num_channels
        return None

    def check_unreadable(self, unreadable: Mapping[str, str]) -> None:
        """Checks that no more clips are unreadable than may be missing; by default, none may be.

        Args:
            unreadable: the reason why a clip cannot be read, by its id.

        Raises:
            UserError: if too many are; the message gives their number and some reasons.
        """
        if unreadable:
            raise UserError(next(iter(unreadable.values())))

    def fingerprint(self) -> str:
        """A digest of ids, captions, ``variant`` and ``sampling``, which identifies the clips without reading audio."""
        digest = hashlib.sha256()
        for i in range(len(self)):
            digest.update("\0".join([self.id(i), *self.captions(i), ""]).encode())
        settings = self.variant + (json.dumps(dict(self.sampling), sort_keys=True) if self.sampling else "")
        if not settings:
            return digest.hexdigest()
        return hashlib.sha256(f"{digest.hexdigest()} {settings}".encode()).hexdigest()

    def sound_state(self) -> str:
        """A text that differs if clips of equal ids and captions differ in sound, as far as known without reading it.

        It distinguishes the stores in the user's cache folder, which have no names given by the user.
        """
        return ""


class Subset(Clips):
    """A selection of the clips of another set.

    Args:
        clips: the other set.
        places: the places of the selected clips in it, from 0, in the order of the selection.
    """

    def __init__(self, clips: Clips, places: Sequence[int]) -> None:
        self.clips, self.places = clips, list(places)
        self.variant, self.missing = clips.variant, clips.missing

    @property
    def sampling(self) -> Mapping[str, Any]:
        return self.clips.sampling

    def encoder(self, codec: Codec, conditioner: Conditioner) -> Encoder:
        encode = self.clips.encoder(codec, conditioner)
        return lambda places: encode([self.places[i] for i in places])

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

    def recorded(self, i: int) -> tuple[Tensor, int] | None:
        return self.clips.recorded(self.places[i])

    def inspect(self, i: int, *, seconds: float, num_channels: int = 1) -> Recording | None:
        return self.clips.inspect(self.places[i], seconds=seconds, num_channels=num_channels)

    def check_unreadable(self, unreadable: Mapping[str, str]) -> None:
        self.clips.check_unreadable(unreadable)

    def sound_state(self) -> str:
        return self.clips.sound_state()
