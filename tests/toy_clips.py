"""A few captioned sounds, without files."""

import torch
from tiny_model import CAPTIONS

from bsa_lightning.data.clips import Clips


class ToyClips(Clips):
    """Noise bursts, each channel softer than the one before; every third clip has two captions."""

    def __init__(self, num_clips, name="toy"):
        self.num_clips, self.name = num_clips, name

    def __len__(self):
        return self.num_clips

    def id(self, i):
        return f"{self.name}-{i}"

    def captions(self, i):
        return [CAPTIONS[i % 3], "rain"] if i % 3 == 0 else [CAPTIONS[i % 3]]

    def waveform(self, i, *, sample_rate, num_samples, num_channels=1):
        generator = torch.Generator().manual_seed(i)
        wave = 0.5 * torch.rand(num_samples, generator=generator) * (torch.arange(num_samples) % (50 + 7 * i) < 25)
        return wave if num_channels == 1 else wave / torch.arange(1, num_channels + 1)[:, None]


class BrokenClips(ToyClips):
    """The sixth clip is not a number."""

    def waveform(self, i, **form):
        return super().waveform(i, **form) * (torch.nan if i == 5 else 1)
