"""Readings: conversions of recorded sound to the input of an embedding, in which published evaluators differ."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor
from torch.nn.functional import pad

from bsa_lightning.data.audio import Channels, from_pcm16, refuse_channels, to_pcm16
from bsa_lightning.data.resampling import resample


class Reading(ABC):
    """A conversion of sound, at its own rate and with its own channels, to one channel at the rate of an embedding.

    Generated sound, and synthesised sound that it is compared with, is scored as if it were read from a 16-bit file,
    which ``as_file`` simulates. Recordings are not rounded.
    """

    name: str
    """The name on score cards."""
    shortest: int = 0
    """The number of samples, at the embedding's rate, to which shorter sound is padded with silence at its end."""

    @abstractmethod
    def one_channel(self, waveform: Tensor) -> Tensor:
        """Returns one channel, (batch, samples), of sound (batch, channels, samples), at its own rate."""

    def change_rate(self, waveform: Tensor, rate: int, sample_rate: int) -> Tensor:
        """Returns sound, (batch, samples), resampled from ``rate`` to ``sample_rate``, in Hz, by torchaudio."""
        return resample(waveform, rate, sample_rate)

    def as_file(self, waveform: Tensor) -> Tensor:
        """Returns generated sound, of any shape, as it is read back from the file of ``audio.write``: in 16 bit."""
        return from_pcm16(to_pcm16(waveform))

    def __call__(self, waveform: Tensor, *, rate: int, sample_rate: int) -> Tensor:
        """Returns the input of an embedding, (batch, samples).

        Args:
            waveform: the sound, (batch, channels, samples).
            rate: the sample rate of the sound, in Hz.
            sample_rate: the sample rate of the embedding, in Hz.
        """
        heard = self.change_rate(self.one_channel(waveform), rate, sample_rate)
        return pad(heard, (0, max(0, self.shortest - heard.shape[-1])))

    def num_samples(self, samples: int, *, rate: int, sample_rate: int) -> int:
        """Returns the number of samples of the input of an embedding, to within one.

        Args:
            samples: the number of samples of the sound.
            rate: the sample rate of the sound, in Hz.
            sample_rate: the sample rate of the embedding, in Hz.
        """
        return max(self.shortest, -(-samples * sample_rate // rate))


class Plain(Reading):
    """Conversion to one channel and to the embedding's rate, and nothing else.

    Args:
        channels: "mean" takes the mean of all channels, "first" the first channel.

    Raises:
        UserError: if ``channels`` is neither.
    """

    def __init__(self, channels: Channels = "mean") -> None:
        refuse_channels(channels)
        self.channels = channels
        self.name = "plain" if channels == "mean" else "plain, first channel"

    def one_channel(self, waveform: Tensor) -> Tensor:
        return waveform.mean(1) if self.channels == "mean" else waveform[:, 0]


class AsAudioldmEval(Reading):
    """The reading of audioldm_eval since June 2023, for each of its metrics.

    It subtracts the mean of the first channel, resamples it by torchaudio, and pads it to at least 32,000 samples.
    """

    name = "as-audioldm-eval"
    shortest = 32_000

    def one_channel(self, waveform: Tensor) -> Tensor:
        first = waveform[:, 0]
        return first - first.mean(-1, keepdim=True)


class _OfTango(Reading):
    """The base class of both readings of Tango's published scores."""

    decimated: tuple[tuple[int, int], ...]
    """Pairs of rates, in Hz, between which samples are dropped without a filter."""

    def change_rate(self, waveform: Tensor, rate: int, sample_rate: int) -> Tensor:
        if (rate, sample_rate) in self.decimated:
            return waveform[:, :: rate // sample_rate]
        return super().change_rate(waveform, rate, sample_rate)

    def as_file(self, waveform: Tensor) -> Tensor:
        """Returns generated sound truncated to 16 bit towards zero, as by Tango's vocoder."""
        return ((waveform.clamp(-1, 1) * 32768).trunc() / 32768).clamp(max=32767 / 32768)


class AsPublishedTango(_OfTango, AsAudioldmEval):
    """The reading of the copy of audioldm_eval in Tango's repository, for FD, KL and IS.

    It differs from :class:`AsAudioldmEval` in that 32 and 48 kHz are converted to 16 kHz by dropping samples, and
    generated sound is truncated to 16 bit instead of rounded.
    """

    name = "as-published-tango"
    decimated = ((32_000, 16_000), (48_000, 16_000))


class AsPublishedTangoFAD(_OfTango):
    """The reading of the copy of audioldm_eval in Tango's repository, for FAD.

    It takes the mean of all channels, each rounded to 16 bit; 32 kHz is converted to 16 kHz by dropping samples. Other
    rates are resampled by resampy there, and by torchaudio here. Generated sound is truncated to 16 bit instead of
    rounded.
    """

    name = "as-published-tango, FAD"
    decimated = ((32_000, 16_000),)

    def one_channel(self, waveform: Tensor) -> Tensor:
        return from_pcm16(to_pcm16(waveform)).mean(1)
