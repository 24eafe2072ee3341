"""What is generated and compared: systems, captions, noise and the reference, the same for every system."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchmetrics import MeanMetric

from bsa_lightning.data.clips import Clips
from bsa_lightning.evaluation.embeddings import Embedding, LogMelStatistics, round_to_pcm16
from bsa_lightning.evaluation.frechet import FrechetDistance
from bsa_lightning.evaluation.generation import generate_latents, noise_of
from bsa_lightning.evaluation.scores import Score
from bsa_lightning.teachers.base import Conditioning, Denoiser
from bsa_lightning.teachers.folder import Teacher, load_denoiser, read_provenance, read_sampling
from bsa_lightning.teachers.guided import CountEvaluations


@dataclass(frozen=True)
class System:
    """A denoiser with a way to sample it. ``sampling_scale`` is the g that ``predictor`` is given for it."""

    model: str
    folder: Path
    num_steps: int
    guidance: str
    guidance_scale: float
    sampling_scale: float
    weighting: str = ""
    round: int = 0

    @property
    def name(self) -> str:
        """For folders and progress bars, for example ``student-bsa-8steps``."""
        return "-".join(part for part in (self.model, self.weighting, f"{self.num_steps}steps") if part)

    def score(self, *, seed: int, num_clips: int, nfe: int = 0, metrics: dict[str, float] | None = None) -> Score:
        """This system's row of ``scores.csv``; ``nfe`` is what was counted."""
        return Score(
            model=self.model,
            weighting=self.weighting,
            round=self.round,
            num_steps=self.num_steps,
            guidance=self.guidance,
            guidance_scale=self.guidance_scale,
            nfe=nfe,
            seed=seed,
            num_clips=num_clips,
            metrics=metrics or {},
        )


def teacher_system(folder: Path, *, num_steps: int, guidance_scale: float, model: str = "teacher") -> System:
    """An undistilled model under DDIM, guided outside the network."""
    return System(model, folder, num_steps, "outside", guidance_scale, guidance_scale)


def student_system(folder: Path) -> System:
    """A student's folder, sampled as its provenance says."""
    provenance: dict[str, Any] = read_provenance(folder)
    return System(
        model="student",
        folder=folder,
        num_steps=provenance["num_steps"],
        guidance=provenance["guidance"],
        guidance_scale=provenance["guidance_scale"],
        sampling_scale=read_sampling(folder).scale(),
        weighting=provenance["weighting"],
        round=provenance["round"],
    )


class Protocol:
    """Scores systems against the same reference, from the same captions and noise, shared out over ranks.

    Args:
        clips: held-out captioned sound; all of it is the reference.
        num_captions: the first so many clips' captions are generated from.
        batch_size: clips generated at once.
        embeddings: each gives a Frechet distance under its own name.
        teacher: whose codec and text encoder are used, and whose own samples ``trajectory_error`` compares with.
        zero: the undistilled teacher at its full steps.
        rank: of this process.
        world_size: number of processes.
        device: where networks run.
        on_batch: told after each batch how many clips are done.
    """

    def __init__(
        self,
        clips: Clips,
        *,
        num_captions: int,
        batch_size: int,
        embeddings: Sequence[Embedding] = (),
        teacher: Teacher,
        zero: System,
        rank: int = 0,
        world_size: int = 1,
        device: torch.device | str = "cpu",
        on_batch: Callable[[int], object] = lambda _: None,
    ) -> None:
        self.clips = clips
        self.num_captions = min(num_captions, len(clips))
        self.teacher = teacher
        self.zero = zero
        self.rank, self.world_size = rank, world_size
        self.device = torch.device(device)
        self.on_batch = on_batch
        self.codec = teacher.codec.to(self.device)
        self.embeddings = [embedding.to(self.device) for embedding in embeddings or [LogMelStatistics()]]
        self.distances = self._new_distances()
        mine = list(range(self.num_captions))[rank::world_size]
        self.batches = [mine[i : i + batch_size] for i in range(0, len(mine), batch_size)]
        conditioner = teacher.conditioner.to(self.device)
        self.conditioning = [conditioner([clips.captions(i)[0] for i in batch]) for batch in self.batches]
        self.null: Conditioning = conditioner.null()
        self._zero_latents: dict[int, tuple[list[Tensor], int]] = {}
        self._denoiser: tuple[Path, Denoiser] | None = None
        self._embed_reference(batch_size)

    @torch.no_grad()
    def score(
        self, system: System, *, seed: int, on_clip: Callable[[int, Tensor], None] = lambda _i, _wave: None
    ) -> Score:
        """One repeat of one system; ``on_clip`` receives (clip number, waveform) of this rank's clips."""
        for distance in self.distances:
            distance.reset()
        trajectory = MeanMetric().to(self.device)
        zero_latents, _ = self._latents(self.zero, seed)
        latents, nfe = self._latents(system, seed)
        for batch, x, zero_x in zip(self.batches, latents, zero_latents, strict=True):
            waveform = round_to_pcm16(self.codec.decode(x))
            self._embed(waveform, self.distances)
            trajectory.update((x - zero_x).square().flatten(1).mean(1))
            for clip, wave in zip(batch, waveform, strict=True):
                on_clip(clip, wave)
        metrics = {**self._compute(self.distances), "trajectory_error": float(trajectory.compute())}
        return system.score(seed=seed, num_clips=self.num_captions, nfe=nfe, metrics=metrics)

    def halves(self) -> Score:
        """How far the two halves of the reference are from one another: equal sound, but of other captions."""
        distances = self._new_distances()
        for i in range(self.rank, len(self.clips), self.world_size):
            self._embed(self._reference([i]), distances, reference=bool(i % 2))
        return Score("reference", "", 0, 0, "", 0.0, 0, 0, len(self.clips), self._compute(distances))

    def _latents(self, system: System, seed: int) -> tuple[list[Tensor], int]:
        """This rank's final latents, batch by batch, and the evaluations counted for a clip.

        Those of the undistilled teacher are kept.
        """
        if system == self.zero and seed in self._zero_latents:
            return self._zero_latents[seed]
        denoiser = self._load(system.folder)
        latents = []
        with CountEvaluations(denoiser) as counted:
            for batch, conditioning in zip(self.batches, self.conditioning, strict=True):
                noise = noise_of(batch, seed=seed, shape=self.codec.latent_shape).to(self.device)
                latents.append(
                    generate_latents(
                        denoiser=denoiser,
                        conditioning=conditioning,
                        null=self.null,
                        guidance_scale=system.sampling_scale,
                        num_steps=system.num_steps,
                        noise=noise,
                    )
                )
                self.on_batch(len(batch))
        nfe = counted.rows // max(1, sum(map(len, self.batches)))
        if system == self.zero:
            self._zero_latents[seed] = latents, nfe
        return latents, nfe

    def _load(self, folder: Path) -> Denoiser:
        """The denoiser of a folder; the last one used stays loaded."""
        if folder == self.teacher.folder:
            return self.teacher.denoiser.to(self.device).eval()
        if self._denoiser is None or self._denoiser[0] != folder:
            self._denoiser = (folder, load_denoiser(folder).to(self.device).eval())
        return self._denoiser[1]

    def _embed_reference(self, batch_size: int) -> None:
        mine = range(self.rank, len(self.clips), self.world_size)
        for first in range(0, len(mine), batch_size):
            self._embed(self._reference(mine[first : first + batch_size]), self.distances, reference=True)

    def _new_distances(self) -> list[FrechetDistance]:
        return [FrechetDistance(embedding.num_features).to(self.device) for embedding in self.embeddings]

    def _embed(self, waveform: Tensor, distances: Sequence[FrechetDistance], *, reference: bool = False) -> None:
        """Adds the rows of each embedding to its distance; of several channels their mean is embedded."""
        from torchaudio.functional import resample

        if self.codec.num_channels > 1:
            waveform = waveform.mean(1)
        for embedding, distance in zip(self.embeddings, distances, strict=True):
            features = embedding(resample(waveform, self.codec.sample_rate, embedding.sample_rate))
            distance.update(features.rows, reference=reference)

    def _compute(self, distances: Sequence[FrechetDistance]) -> dict[str, float]:
        pairs = zip(self.embeddings, distances, strict=True)
        return {embedding.metric: float(distance.compute()) for embedding, distance in pairs}

    def _reference(self, clips: Sequence[int]) -> Tensor:
        codec = self.codec
        waves = [
            self.clips.waveform(
                i, sample_rate=codec.sample_rate, num_samples=codec.num_samples, num_channels=codec.num_channels
            )
            for i in clips
        ]
        return round_to_pcm16(torch.stack(waves).to(self.device))
