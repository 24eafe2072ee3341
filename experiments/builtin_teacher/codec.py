"""Step 1 of the built-in teacher: an AutoencoderKL on the log-mels of soundscapes."""

from __future__ import annotations

from pathlib import Path

import torch
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from bsa_lightning.data.soundscapes import Soundscapes
from bsa_lightning.models.mel import HOP_LENGTH, LogMel

SAMPLE_RATE = 16_000


class SoundscapeMels(LightningDataModule):
    """Log-mels of soundscapes, computed once into memory.

    Args:
        num_clips: for training; as many as a tenth more validate.
        num_frames: of a clip (100 a second); training cuts it in halves.
        batch_size: halves in a batch.
        seed: of the training clips.
    """

    def __init__(self, num_clips: int = 3000, num_frames: int = 256, batch_size: int = 16, seed: int = 100) -> None:
        super().__init__()
        self.num_clips = num_clips
        self.num_frames = num_frames
        self.batch_size = batch_size
        self.seed = seed

    def setup(self, stage: str) -> None:
        del stage
        self.train_mels = self._mels(self.num_clips, self.seed)
        self.val_mels = self._mels(self.num_clips // 10, self.seed + 1)

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        halves = self.train_mels.unflatten(1, (2, self.num_frames // 2)).flatten(0, 1)
        return DataLoader(TensorDataset(halves), self.batch_size, shuffle=True, drop_last=True)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        return DataLoader(TensorDataset(self.val_mels), self.batch_size)

    def _mels(self, num_clips: int, seed: int) -> Tensor:
        clips, log_mel = Soundscapes(num_clips, seed), LogMel(SAMPLE_RATE)
        num_samples = self.num_frames * HOP_LENGTH
        waves = (clips.waveform(i, sample_rate=SAMPLE_RATE, num_samples=num_samples) for i in range(num_clips))
        return torch.stack([log_mel(wave[None])[0] for wave in waves])


class TrainCodec(LightningModule):
    """L1 on the log-mel plus a light pull of the posterior towards N(0, 1); the scale factor is measured at the end.

    Args:
        out: the model folder whose ``vae/`` is written.
        block_out_channels: widths; each level after the first halves time and frequency.
        kl_weight: of the mean divergence of a latent element, against the mean error of a mel bin.
        learning_rate: linear to zero.
    """

    def __init__(
        self,
        out: str,
        block_out_channels: tuple[int, ...] = (8, 16, 32, 64),
        kl_weight: float = 1e-2,
        learning_rate: float = 1.5e-3,
    ) -> None:
        super().__init__()
        from diffusers import AutoencoderKL

        self.out = Path(out)
        self.kl_weight = kl_weight
        self.learning_rate = learning_rate
        levels = len(block_out_channels)
        self.vae = AutoencoderKL(
            in_channels=1,
            out_channels=1,
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            block_out_channels=block_out_channels,
            layers_per_block=1,
            latent_channels=8,
            norm_num_groups=8,
            sample_size=256,
        )
        torch.nn.init.constant_(self.vae.decoder.conv_out.bias, -8.0)  # the mean of a log-mel

    def training_step(self, batch: list[Tensor]) -> Tensor:
        mel = batch[0][:, None]
        posterior = self.vae.encode(mel).latent_dist
        error = (self.vae.decode(posterior.sample()).sample - mel).float()
        kl = 0.5 * (posterior.mean**2 + posterior.var - 1 - posterior.logvar).float().mean()
        l1 = error.abs().mean()
        self.log_dict({"train/l1": l1, "train/kl": kl}, prog_bar=True)
        return l1 + 0.1 * error.square().mean() + self.kl_weight * kl

    def validation_step(self, batch: list[Tensor]) -> None:
        mel = batch[0][:, None]
        decoded = self.vae.decode(self.vae.encode(mel).latent_dist.mean).sample
        self.log("val/l1", (decoded - mel).float().abs().mean(), prog_bar=True)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = torch.optim.Adam(self.vae.parameters(), lr=self.learning_rate)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: min(1.0, (step + 1) / 100) * (1 - step / steps)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    @torch.no_grad()
    def on_fit_end(self) -> None:
        mels = self.trainer.datamodule.val_mels[:256, None]  # type: ignore[attr-defined]
        latents = self.vae.float().eval().to("cpu").encode(mels).latent_dist.sample()
        self.vae.register_to_config(scaling_factor=float(1 / latents.std()))
        self.vae.half().save_pretrained(self.out / "vae")
