"""Scores for the loggers of a run, TensorBoard and Weights & Biases: numbers, sound and pictures."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from torch import Tensor

from bsa_lightning.evaluation.scores import COLUMNS, Score
from bsa_lightning.evaluation.system_name import SystemName


def log_score(loggers: Iterable[Logger], score: Score) -> None:
    """Logs one row of ``scores.csv``, over the number of network evaluations of a clip."""
    values = {f"scores/{score.system.line}/{metric}": value for metric, value in score.metrics.items()}
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.experiment.define_metric("nfe")
            # Each by its name, since a pattern would come after Lightning's, which gives all metrics its own axis.
            # Without a summary, which would be the last of the numbers of steps and seeds; log_table adds the means.
            for name in values:
                logger.experiment.define_metric(name, step_metric="nfe", summary="none")
            logger.experiment.log({**values, "num_steps": score.num_steps, "nfe": score.nfe, "seed": score.seed})
        elif isinstance(logger, TensorBoardLogger):
            logger.log_metrics(values, step=score.nfe)


def log_samples(loggers: Iterable[Logger], name: str, paths: Sequence[Path], captions: Sequence[str]) -> None:
    """Logs wav files of the system of this name, each with its caption and a picture of its log-mel spectrogram."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.log_audio(f"samples/{name}", [str(path) for path in paths], caption=list(captions))
            pictures = [log_mel_picture(path).numpy() for path in paths]
            logger.log_image(f"spectrograms/{name}", pictures, caption=list(captions))
        elif isinstance(logger, TensorBoardLogger):
            for path, caption in zip(paths, captions, strict=True):
                samples, rate = _read(path)
                tag = f"{name}/{path.stem}"
                logger.experiment.add_audio(f"samples/{tag}", samples[None], sample_rate=rate)
                logger.experiment.add_image(f"spectrograms/{tag}", log_mel_picture(path)[None])
                logger.experiment.add_text(f"captions/{tag}", caption)


def log_table(loggers: Iterable[Logger], rows: Sequence[Mapping[str, str]]) -> None:
    """Logs all rows of ``scores.csv`` as one table, and the means over sampling seeds as the summary of the run."""
    values: dict[str, list[float]] = {}
    for row in rows:
        for metric in row.keys() - set(COLUMNS):
            if row[metric]:
                values.setdefault(f"means/{SystemName.of(row).folder}/{metric}", []).append(float(row[metric]))
    columns = list(dict.fromkeys(name for row in rows for name in row))
    for logger in loggers:
        if isinstance(logger, WandbLogger) and rows:
            logger.log_table("scores", columns=columns, data=[[row.get(name, "") for name in columns] for row in rows])
            logger.experiment.summary.update({name: math.fsum(each) / len(each) for name, each in values.items()})


def log_mel_picture(path: Path) -> Tensor:
    """Returns a wav file's log-mel spectrogram as grey levels, (64, frames) uint8, with low bands at the bottom.

    White is the loudest value, black is 80 dB below it.
    """
    from bsa_lightning.models.mel import LogMel

    samples, rate = _read(path)
    log_mel = LogMel(rate)(samples[None])[0].T.flip(0)
    decibels = 20 / torch.log(torch.tensor(10.0)) * (log_mel - log_mel.max())
    return (255 * (1 + decibels / 80).clamp(0, 1)).to(torch.uint8)


def _read(path: Path) -> tuple[Tensor, int]:
    """The sound of a file, (samples,) float32, the mean of its channels, and its sample rate."""
    import soundfile

    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return torch.from_numpy(samples.mean(1)), rate
