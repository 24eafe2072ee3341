"""What ``lightning predict`` runs: a captions file to wav files, shared out over all devices."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch import LightningDataModule, LightningModule
from torch.utils.data import DataLoader

from bsa_lightning.common.ranges import check_number
from bsa_lightning.data.captions import read_captions
from bsa_lightning.generation.sounds import Sounds


class Generation(LightningModule):
    """Makes one wav a caption, in ``<run>/samples/``.

    Args:
        model: folder of a model or student, or "tiny" for the built-in teacher.
        num_steps: of the sampler, at least 1; None takes what the model was made for.
        guidance_scale: of the sampler, at least 0; None takes what the model was made for.
        seed: of the noise, at least 0.
    """

    def __init__(
        self, model: str, num_steps: int | None = None, guidance_scale: float | None = None, seed: int = 0
    ) -> None:
        super().__init__()
        self.sounds = Sounds(model, num_steps=num_steps, guidance_scale=guidance_scale, seed=seed)

    def predict_step(self, batch: list[tuple[int, str]]) -> list[Path]:
        numbers, captions = zip(*batch, strict=True)
        return self.sounds.write(Path(self.trainer.default_root_dir) / "samples", captions, numbers)


class Captions(LightningDataModule):
    """Captions from a file, dealt out to the devices in turn.

    Args:
        file: text (one a line), CSV (column ``caption``) or JSON lines (``captions``).
        batch_size: clips of one batch on one device, at least 1.
    """

    def __init__(self, file: Path, batch_size: int = 16) -> None:
        super().__init__()
        check_number("batch_size", batch_size, whole=True, at_least=1)
        self.file = Path(file)
        self.batch_size = batch_size

    def setup(self, stage: str) -> None:
        del stage
        self.captions = read_captions(self.file)

    def predict_dataloader(self) -> DataLoader[tuple[int, str]]:
        trainer = self.trainer
        rank, world_size = (0, 1) if trainer is None else (trainer.global_rank, trainer.world_size)
        share = list(enumerate(self.captions))[rank::world_size]
        return DataLoader(share, batch_size=self.batch_size, collate_fn=list)  # type: ignore[arg-type]
