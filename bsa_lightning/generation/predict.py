"""Module and data module of ``lightning predict``: a file of captions to wav files, on all devices."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch import LightningDataModule, LightningModule
from torch.utils.data import DataLoader

from bsa_lightning.common.ranges import check_number
from bsa_lightning.data.captions import read_captions
from bsa_lightning.generation.wav_writer import WavWriter
from bsa_lightning.models.vocabulary import warn_of_unknown_words


class Generation(LightningModule):
    """Makes a wav file of each caption, in ``<run>/samples/``.

    Args:
        model: the folder of a model or student, a hub id, or "tiny" or "tiny-flow", which are built in.
        num_steps: the number of steps of the sampler, at least 1; ``None`` takes what the model was made for.
        guidance_scale: the guidance scale, at least 0; ``None`` takes what the model was made for.
        seed: the seed of the noise, at least 0.

    Raises:
        UserError: if there is no such model, or a setting is out of its range.
    """

    def __init__(
        self, model: str, num_steps: int | None = None, guidance_scale: float | None = None, seed: int = 0
    ) -> None:
        super().__init__()
        self.sounds = WavWriter(model, num_steps=num_steps, guidance_scale=guidance_scale, seed=seed)

    def on_predict_start(self) -> None:
        captions = getattr(self.trainer.datamodule, "captions", [])  # type: ignore[attr-defined]
        warn_of_unknown_words(self.sounds.folder, captions)  # one warning, before those of batches

    def predict_step(self, batch: list[tuple[int, str]]) -> list[Path]:
        numbers, captions = zip(*batch, strict=True)
        return self.sounds.write(Path(self.trainer.default_root_dir) / "samples", captions, numbers)


class Captions(LightningDataModule):
    """The captions of a file, each with its number, shared out among the devices.

    Args:
        file: a text file with a caption on each line, a CSV file with a column ``caption``, or a file of JSON lines
            with an entry ``captions``.
        batch_size: the number of captions of a batch on one device, at least 1.

    Raises:
        UserError: if ``batch_size`` is below 1.
    """

    def __init__(self, file: Path, batch_size: int = 16) -> None:
        super().__init__()
        check_number("batch_size", batch_size, whole=True, at_least=1)
        self.allow_zero_length_dataloader_with_multiple_devices = True  # there may be more devices than captions
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
