"""How recorded sound becomes what an embedding hears. Published evaluators differ in it, so each reading has a name."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor
from torch.nn.functional import pad

from bsa_lightning.data.audio import Channels, from_pcm16, refuse_channels, to_pcm16
from bsa_lightning.data.resampling import resample


class Reading(ABC):
    """From sound at its own rate, with its own channels, to one channel at the rate of an embedding.

    Generated sound is scored as a 16-bit file of it would be, which ``as_file`` gives; so is synthesised sound that it
    is compared with. Recordings are heard as they are.
    """

    name: str
    """For score cards."""
    shortest: int = 0
    """Samples, at the embedding's rate, that shorter sound is padded to with silence at its end."""

    @abstractmethod
    def one_channel(self, waveform: Tensor) -> Tensor:
        """One channel (batch, samples) of (batch, channels, samples), at the sound's own rate."""

    def change_rate(self, waveform: Tensor, rate: int, sample_rate: int) -> Tensor:
        """Sound (batch, samples) at ``sample_rate``, from ``rate``: by torchaudio's windowed sinc."""
        return resample(waveform, rate, sample_rate)

    def as_file(self, waveform: Tensor) -> Tensor:
        """Generated sound, of any shape, as ``audio.write`` writes it and a reader finds it: rounded to 16 bit."""
        return from_pcm16(to_pcm16(waveform))

    def __call__(self, waveform: Tensor, *, rate: int, sample_rate: int) -> Tensor:
        """What an embedding of ``sample_rate`` hears, (batch, samples).

        Args:
            waveform: sound (batch, channels, samples).
            rate: its samples a second.
            sample_rate: the embedding's.
        """
        heard = self.change_rate(self.one_channel(waveform), rate, sample_rate)
        return pad(heard, (0, max(0, self.shortest - heard.shape[-1])))

    def num_samples(self, samples: int, *, rate: int, sample_rate: int) -> int:
        """How many samples an embedding hears of a sound of so many, to within one."""
        return max(self.shortest, -(-samples * sample_rate // rate))


class Plain(Reading):
    """Nothing but what must be: one channel, and the embedding's rate.

    Args:
        channels: "mean" hears the mean of all channels, "first" the first of them.

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
    """As audioldm_eval reads files since June 2023, for each of its metrics.

    The first channel without its mean, resampled by torchaudio; shorter than 32,000 samples, it is padded to so many.
    """

    name = "as-audioldm-eval"
    shortest = 32_000

    def one_channel(self, waveform: Tensor) -> Tensor:
        first = waveform[:, 0]
        return first - first.mean(-1, keepdim=True)


class _OfTango(Reading):
    """What both readings of Tango's published scores have in common."""

    decimated: tuple[tuple[int, int], ...]
    """Pairs of rates between which samples are dropped, without a filter."""

    def change_rate(self, waveform: Tensor, rate: int, sample_rate: int) -> Tensor:
        if (rate, sample_rate) in self.decimated:
            return waveform[:, :: rate // sample_rate]
        return super().change_rate(waveform, rate, sample_rate)

    def as_file(self, waveform: Tensor) -> Tensor:
        """Cut to 16 bit towards zero, as Tango's vocoder does."""
        return ((waveform.clamp(-1, 1) * 32768).trunc() / 32768).clamp(max=32767 / 32768)


class AsPublishedTango(_OfTango, AsAudioldmEval):
    """As the copy of audioldm_eval inside Tango reads files for FD, KL and IS.

    As :class:`AsAudioldmEval`, but 32 and 48 kHz are brought to 16 kHz by dropping samples, and generated sound is cut
    to 16 bit, not rounded.
    """

    name = "as-published-tango"
    decimated = ((32_000, 16_000), (48_000, 16_000))


class AsPublishedTangoFAD(_OfTango):
    """As the copy of audioldm_eval inside Tango reads files for FAD.

    The mean of all channels, each in 16 bit; 32 kHz is brought to 16 kHz by dropping samples. Other rates are resampled
    there by resampy, and by torchaudio here. Generated sound is cut to 16 bit, not rounded.
    """

    name = "as-published-tango, FAD"
    decimated = ((32_000, 16_000),)

    def one_channel(self, waveform: Tensor) -> Tensor:
        return from_pcm16(to_pcm16(waveform)).mean(1)
