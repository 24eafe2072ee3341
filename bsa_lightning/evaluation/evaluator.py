"""The scoring of systems: from the same captions and noise, against the same reference, for every system."""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from bsa_lightning.evaluation.embeddings.base import Embedding, Features, ReadsCaptions
from bsa_lightning.evaluation.measures import Measures
from bsa_lightning.evaluation.reference import RowCache, embed
from bsa_lightning.evaluation.row_store import ClipRows, RowStore, mean
from bsa_lightning.evaluation.sample_cache import SampleCache, SampledBatch
from bsa_lightning.evaluation.scores import TRAJECTORY_ERROR, Score
from bsa_lightning.evaluation.scoring_settings import ScoringSettings
from bsa_lightning.evaluation.systems import System
from bsa_lightning.generation.from_noise import generate_latents, noise_of
from bsa_lightning.models.base import Denoiser
from bsa_lightning.models.conditioning import Conditioning
from bsa_lightning.models.hashing import sha256_of_network
from bsa_lightning.models.loading import ModelParts, load_denoiser
from bsa_lightning.models.predictor import CountEvaluations


class Sampled(NamedTuple):
    """The latents that a system has sampled for this rank's captions."""

    latents: list[Tensor]
    """The final latents (batch, ...) of each batch."""
    nfe: int
    """The number of network evaluations of a clip, as counted."""
    seconds_per_clip: float
    """The time to sample a clip, without codec and text encoder, in seconds; the median over batches."""


@dataclass(frozen=True)
class Process:
    """One of the processes that share out the scoring, and how networks run in it.

    Args:
        rank: the number of this process, from 0.
        world_size: the number of processes.
        device: the device that networks run on.
        precision: makes the context in which networks sample; codec and embeddings stay in full precision.
    """

    rank: int = 0
    world_size: int = 1
    device: torch.device | str = "cpu"
    precision: Callable[[], AbstractContextManager[object]] = nullcontext


class Evaluator:
    """Scores systems against the same reference, from the same captions and noise, shared out over ranks.

    After :meth:`score`, ``rows`` holds the rows of the system's clips, of all ranks, by name of the embedding, and
    under ``TRAJECTORY_ERROR`` the trajectory error of each clip.

    Args:
        settings: the settings of the scoring, whose ``clips`` must be set.
        teacher: the model whose codec and text encoder all systems share.
        full_teacher: the undistilled teacher at its full steps, whose samples ``trajectory_error`` compares with.
        process: this process among those that share out the captions.
    """

    def __init__(
        self,
        settings: ScoringSettings,
        *,
        teacher: ModelParts,
        full_teacher: System,
        process: Process | None = None,
    ) -> None:
        assert settings.clips is not None
        self.settings, self.clips = settings, settings.clips
        self.num_captions = settings.num_generated
        self.teacher = teacher
        self.full_teacher = full_teacher
        self.process = Process() if process is None else process
        self.device = torch.device(self.process.device)
        self.codec = teacher.codec.to(self.device)
        self.embeddings = [embedding.to(self.device) for embedding in settings.embeddings]
        self._sample_cache = SampleCache(settings.cache_folder / "samples")
        self._row_cache = RowCache(settings.cache_folder / "rows")
        self._decoder = (
            f"decoded by {self.codec.fingerprint}, {sha256_of_network(self.codec)}, torch {torch.__version__}"
        )
        self.measures = [
            self._measures(embedding, reference)
            for embedding, reference in zip(self.embeddings, self._reference_rows(), strict=True)
        ]
        self.rows: dict[str, ClipRows] = {}
        mine = list(range(self.num_captions))[self.process.rank :: self.process.world_size]
        self.batches = [mine[i : i + settings.batch_size] for i in range(0, len(mine), settings.batch_size)]
        conditioner = teacher.conditioner.to(self.device)
        self.conditioning = [conditioner([self.clips.captions(i)[0] for i in batch]) for batch in self.batches]
        self.null: Conditioning = conditioner.null()
        self._full_teacher_sampled: dict[int, Sampled] = {}
        self._denoiser: tuple[Path, Denoiser] | None = None

    @torch.no_grad()
    def score(
        self,
        system: System,
        *,
        seed: int,
        on_clip: Callable[[int, Tensor], None] = lambda _i, _wave: None,
        num_decoded: int = 0,
        on_batch: Callable[[int], object] = lambda _: None,
    ) -> Score:
        """Scores one system with one sampling seed; must be called on every rank.

        Args:
            system: the system.
            seed: the seed of the sampling noise.
            on_clip: a function that is called with the number and the waveform of each clip of this rank among the
                first ``num_decoded``.
            num_decoded: the number of clips, the first ones, that are decoded even if all their rows are in the cache.
            on_batch: a function that is called with the number of clips of each batch that has been sampled; see
                :meth:`num_samplings`.
        """
        cache = RowCache(None) if system.weighting else self._row_cache
        stores = self._stores()
        trajectory = RowStore(1).to(self.device)
        full = self._sample(self.full_teacher, seed, on_batch)
        sampled = self._sample(system, seed, on_batch)
        for batch, x, teacher_x in zip(self.batches, sampled.latents, full.latents, strict=True):
            decode = functools.cache(partial(self.codec.decode, x))  # is not called if all rows are in the cache
            for embedding, store in zip(self.embeddings, stores, strict=True):
                make, kind = partial(self._embed, embedding, decode), self._decoder
                store.update(cache.get(make, embedding, kind, x), batch)
            errors = (x - teacher_x).square().flatten(1).mean(1)
            trajectory.update(Features(errors[:, None, None]), batch)
            if batch[0] < num_decoded:
                for clip, wave in zip(batch, decode(), strict=True):
                    if clip < num_decoded:
                        on_clip(clip, wave)
        found = [store.compute() for store in stores]
        self.rows = {embedding.name: rows for embedding, rows in zip(self.embeddings, found, strict=True)}
        metrics: dict[str, float] = {}
        for measures in self.measures:
            metrics |= measures(self.rows[measures.embedding.name])
        self.rows[TRAJECTORY_ERROR] = trajectory.compute()
        metrics |= {TRAJECTORY_ERROR: mean(self.rows[TRAJECTORY_ERROR]), "seconds_per_clip": sampled.seconds_per_clip}
        return system.row(seed=seed, num_clips=self.num_captions, nfe=sampled.nfe, metrics=metrics)

    def num_samplings(self, pairs: Iterable[tuple[System, int]]) -> int:
        """Returns how many times this rank's captions are sampled to score these (system, seed) pairs.

        The samples of the teacher at its full steps are needed once for each seed, even if it is not scored itself.
        """
        needed = {(system, seed) for pair_system, seed in pairs for system in (self.full_teacher, pair_system)}
        return len(needed - {(self.full_teacher, seed) for seed in self._full_teacher_sampled})

    def _embed(self, embedding: Embedding, decode: Callable[[], Tensor]) -> Features:
        """Returns the features of generated sound, as if it were read from its file."""
        return embed(embedding, embedding.reading.as_file(decode()), sample_rate=self.codec.sample_rate)

    def halves(self) -> Score:
        """Returns the distances between two halves of the reference: the same kind of sound, with other captions."""
        metrics: dict[str, float] = {}
        for measures in self.measures:
            even, odd = (measures.reference.at(torch.arange(half, len(self.clips), 2)) for half in (0, 1))
            metrics |= Measures(measures.embedding, odd).distances(even)
        return Score("reference", "", 0, 0, "", 0.0, 0, 0, len(self.clips), metrics, sampler="")

    def _sample(self, system: System, seed: int, on_batch: Callable[[int], object] = lambda _: None) -> Sampled:
        """Returns the latents of this rank's captions; those of the teacher at its full steps are kept in memory."""
        if system == self.full_teacher and seed in self._full_teacher_sampled:
            return self._full_teacher_sampled[seed]
        cache = SampleCache(None) if system.weighting else self._sample_cache
        found = []
        with self.process.precision():
            for batch, conditioning in zip(self.batches, self.conditioning, strict=True):
                noise = noise_of(batch, seed=seed, shape=self.codec.latent_shape).to(self.device)
                found.append(
                    cache.get(
                        partial(self._sample_batch, system, noise, conditioning),
                        system=system,
                        noise=noise,
                        conditioning=conditioning,
                        null=self.null,
                    )
                )
                on_batch(len(batch))
        nfe = sum(batch.nfe for batch in found) // max(1, sum(map(len, self.batches)))
        seconds = statistics.median(batch.seconds for batch in found) if found else 0.0
        sampled = Sampled([batch.latents for batch in found], nfe, seconds)
        if system == self.full_teacher:
            self._full_teacher_sampled[seed] = sampled
        return sampled

    def _sample_batch(self, system: System, noise: Tensor, conditioning: Conditioning) -> SampledBatch:
        denoiser = self._load(system.folder)
        with CountEvaluations(denoiser) as counted:
            start = self._now()
            latents = generate_latents(
                denoiser=denoiser,
                conditioning=conditioning,
                null=self.null,
                guidance_scale=system.sampling_scale,
                num_steps=system.num_steps,
                noise=noise,
                sampler=system.sampler,
            )
            return SampledBatch(latents, counted.rows, (self._now() - start) / len(noise))

    def _now(self) -> float:
        """Returns a time in seconds, after waiting for all work of the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def _load(self, folder: Path) -> Denoiser:
        """Returns the denoiser of a folder; the last one stays in memory."""
        if folder == self.teacher.folder:
            return self.teacher.denoiser.to(self.device).eval()
        if self._denoiser is None or self._denoiser[0] != folder:
            self._denoiser = (folder, load_denoiser(folder).to(self.device).eval())
        return self._denoiser[1]

    def _stores(self) -> list[RowStore]:
        return [RowStore(embedding.num_features).to(self.device) for embedding in self.embeddings]

    @torch.no_grad()
    def _reference_rows(self) -> list[ClipRows]:
        """Returns the rows of all reference clips for each embedding, of all ranks."""
        stores = self._stores()
        mine = range(self.process.rank, len(self.clips), self.process.world_size)
        for first in range(0, len(mine), self.settings.batch_size):
            for clips, waveform, rate, is_recorded in self._reference(mine[first : first + self.settings.batch_size]):
                for embedding, store in zip(self.embeddings, stores, strict=True):
                    heard = waveform if is_recorded else embedding.reading.as_file(waveform)
                    store.update(self._row_cache.embed(embedding, heard, sample_rate=rate), clips)
        return [store.compute() for store in stores]

    @torch.no_grad()
    def _measures(self, embedding: Embedding, reference: ClipRows) -> Measures:
        captions = None
        if isinstance(embedding, ReadsCaptions):
            captions = embedding.text([self.clips.captions(i)[0] for i in range(self.num_captions)]).double().cpu()
        asked = {"at_infinity": self.settings.at_infinity, "kadtk": self.settings.kadtk}
        return Measures(embedding, reference, captions=captions, **asked)

    def _reference(self, clips: Sequence[int]) -> Iterator[tuple[Sequence[int], Tensor, int, bool]]:
        """Yields batches of reference clips: their numbers, sound, sample rate in Hz, and whether it was recorded.

        Recordings come one by one, since their lengths differ. Synthesised sound is as long as generated sound, and is
        rounded to 16 bit as that is: a distance would see the difference in silence otherwise.
        """
        codec = self.codec
        made = []
        for i in clips:
            if (recorded := self.clips.recorded(i)) is None:
                size = {"sample_rate": codec.sample_rate, "num_samples": codec.num_samples}
                made.append((i, self.clips.waveform(i, **size, num_channels=codec.num_channels)))
            else:
                yield [i], recorded[0][None].to(self.device), recorded[1], True
        if made:
            waves = torch.stack([wave for _, wave in made]).to(self.device)
            yield [i for i, _ in made], waves, codec.sample_rate, False
