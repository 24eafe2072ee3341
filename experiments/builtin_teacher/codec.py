"""Step 1 of the built-in teacher: its codec, from soundscapes and recordings together."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from bsa_lightning.data.audio import normalise, read
from bsa_lightning.data.captions import AudioCapsManifest
from bsa_lightning.data.soundscapes import Soundscapes
from bsa_lightning.models.istft_vocoder import ISTFTVocoder
from bsa_lightning.models.mel import HOP_LENGTH, LogMel
from bsa_lightning.models.patch_autoencoder import PatchAutoencoder

SAMPLE_RATE = 16_000
NUM_SAMPLES = 40_960
SPEEDS = (1.0, 0.87, 0.77, 1.14, 1.3)
"""A recording is heard at each of these speeds, which changes its pitch too."""
CLIPS_PER_EPOCH = 16_000
NUM_FITTED = 2000
"""The number of pieces whose principal components are taken."""
QUIETEST = 1e-4
"""The smallest magnitude that the vocoder learns; a sinusoid at full scale has 256."""


class Segments(Dataset[Tensor]):
    """Short pieces of soundscapes and recordings, some of them mixed, at random levels.

    Args:
        soundscapes: waveforms.
        recordings: waveforms of at least some length.
        num_samples: of a piece.
        seed: of the draws; each piece is a function of it and of its place.
    """

    def __init__(self, soundscapes: list[Tensor], recordings: list[Tensor], *, num_samples: int, seed: int) -> None:
        self.soundscapes, self.recordings = soundscapes, recordings
        self.num_samples = num_samples
        self.seed = seed

    def __len__(self) -> int:
        return CLIPS_PER_EPOCH

    def __getitem__(self, i: int) -> Tensor:
        rng = np.random.default_rng([self.seed, i])
        wave = self._piece(rng)
        if rng.random() < 0.2:
            wave = wave + self._piece(rng) * float(10 ** (-0.7 * rng.random()))
        wave = wave * float(10 ** rng.uniform(-0.4, 0.25))
        return wave / wave.abs().max().clamp(min=1)

    def _piece(self, rng: np.random.Generator) -> Tensor:
        waves = self.soundscapes if rng.random() < 0.3 else self.recordings
        wave = waves[int(rng.integers(len(waves)))]
        start = int(rng.integers(max(1, len(wave) - self.num_samples)))
        piece = wave[start : start + self.num_samples].float()
        return nn.functional.pad(piece, (0, self.num_samples - len(piece)))


class Sounds(LightningDataModule):
    """Soundscapes and the recordings of ESC-10's training folds, in memory; every tenth recording validates.

    Args:
        csv: the manifest of recordings.
        audio_dir: the folder of their files.
        num_soundscapes: for training; a tenth more validate.
        num_frames: of a piece (100 a second), a multiple of 8.
        batch_size: pieces in a batch.
        seed: of soundscapes and pieces.
    """

    def __init__(
        self,
        csv: str = "data/esc10/train.csv",
        audio_dir: str = "data/esc10/audio",
        num_soundscapes: int = 2000,
        num_frames: int = 128,
        batch_size: int = 8,
        seed: int = 100,
    ) -> None:
        super().__init__()
        self.csv, self.audio_dir = Path(csv), Path(audio_dir)
        self.num_soundscapes = num_soundscapes
        self.num_samples = num_frames * HOP_LENGTH
        self.batch_size = batch_size
        self.seed = seed

    def setup(self, stage: str) -> None:
        del stage
        made = [
            Soundscapes(count, seed).waveform(i, sample_rate=SAMPLE_RATE, num_samples=NUM_SAMPLES).half()
            for count, seed in ((self.num_soundscapes, self.seed), (self.num_soundscapes // 10, self.seed + 1))
            for i in range(count)
        ]
        clips = AudioCapsManifest(self.csv, self.audio_dir)
        trained = [
            normalise(read(clips.source(i), sample_rate=round(SAMPLE_RATE / speed))).half()
            for i in range(len(clips))
            for speed in SPEEDS
            if i % 10
        ]
        held_out = [
            clips.waveform(i, sample_rate=SAMPLE_RATE, num_samples=NUM_SAMPLES) for i in range(0, len(clips), 10)
        ]
        self.train_pieces = Segments(
            made[: self.num_soundscapes], trained, num_samples=self.num_samples, seed=self.seed
        )
        self.val_clips = [wave.float() for wave in made[self.num_soundscapes :][: len(held_out)]] + held_out

    def train_dataloader(self) -> DataLoader[Tensor]:
        return DataLoader(self.train_pieces, self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader[Tensor]:
        return DataLoader(self.val_clips, 8)  # type: ignore[arg-type]


class TrainCodec(LightningModule):
    """Principal components of log-mel patches in closed form, then a vocoder on what they leave of the spectrogram.

    The vocoder learns the logarithm of each magnitude. Latents are a little noisy meanwhile, as a denoiser's are.

    Args:
        out: the model folder whose ``vae/`` and ``vocoder/`` are written.
        latent_channels: of a latent.
        noise: the largest standard deviation of the noise on latents, against theirs.
        learning_rate: the highest; half a cosine to zero.
    """

    def __init__(self, out: str, latent_channels: int = 16, noise: float = 0.05, learning_rate: float = 2e-3) -> None:
        super().__init__()
        self.out = Path(out)
        self.noise = noise
        self.learning_rate = learning_rate
        self.log_mel = LogMel(SAMPLE_RATE)
        self.vae = PatchAutoencoder(latent_channels).requires_grad_(False)
        self.vocoder = ISTFTVocoder()
        self.vocoder.bands.copy_(self.log_mel.mel.mel_scale.fb)

    def on_fit_start(self) -> None:
        pieces = self.trainer.datamodule.train_pieces  # type: ignore[attr-defined]
        mels = self.log_mel(torch.stack([pieces[i] for i in range(NUM_FITTED)]))
        self.vae.fit(mels)
        latents = self.vae.encode(mels[:, None]).latent_dist.mean
        self.vae.register_to_config(scaling_factor=float(1 / latents.std()))

    def training_step(self, waves: Tensor) -> Tensor:
        loss = self._loss(waves, self.noise)
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, waves: Tensor) -> None:
        self.log("val/loss", self._loss(waves, 0.0), prog_bar=True)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = torch.optim.AdamW(self.vocoder.parameters(), lr=self.learning_rate, betas=(0.9, 0.98))
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: min(1.0, (step + 1) / 100) * (1 + math.cos(math.pi * step / steps)) / 2
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_fit_end(self) -> None:
        self.vae.save_pretrained(self.out / "vae")
        self.vocoder.half().save_pretrained(self.out / "vocoder")

    def _loss(self, waves: Tensor, noise: float) -> Tensor:
        latents = self.vae.encode(self.log_mel(waves)[:, None]).latent_dist.mean
        spread = noise * torch.rand(len(waves), 1, 1, 1) / self.vae.config.scaling_factor
        decoded = self.vae.decode(latents + spread * torch.randn_like(latents)).sample[:, 0]
        made = self.vocoder.magnitudes(decoded).clamp(min=QUIETEST).log()
        truth = self.vocoder.transform(waves)[..., :-1].abs().clamp(min=QUIETEST).log()
        return (made - truth).abs().mean()
