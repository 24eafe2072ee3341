"""What is generated and compared: systems, captions, noise and the reference, the same for every system."""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from bsa_lightning.data.clips import Clips
from bsa_lightning.evaluation.embeddings.base import Embedding, Features, LogMelStatistics
from bsa_lightning.evaluation.measures import Measures, ReadsCaptions
from bsa_lightning.evaluation.reference import RowCache, embed
from bsa_lightning.evaluation.row_store import ClipRows, RowStore, mean
from bsa_lightning.evaluation.sample_cache import SampleCache, SampledBatch
from bsa_lightning.evaluation.scores import TRAJECTORY_ERROR, Score
from bsa_lightning.evaluation.systems import System
from bsa_lightning.generation.generate import generate_latents, noise_of
from bsa_lightning.models.base import Denoiser
from bsa_lightning.models.conditioning import Conditioning
from bsa_lightning.models.loading import TextToAudioModel, folder_sha256, load_denoiser
from bsa_lightning.models.predictor import CountEvaluations


class Sampled(NamedTuple):
    """What a system made of this rank's captions."""

    latents: list[Tensor]
    """Final ones, batch by batch."""
    nfe: int
    """Network evaluations counted for a clip."""
    seconds_per_clip: float
    """Of sampling alone, without codec and text encoder; the median over batches."""


class Protocol:
    """Scores systems against the same reference, from the same captions and noise, shared out over ranks.

    After :meth:`score`, ``rows`` holds by embedding what the system's clips gave, of all ranks, and under
    ``TRAJECTORY_ERROR`` the error of each clip.

    Args:
        clips: held-out captioned sound; all of it is the reference.
        num_captions: the first so many clips' captions are generated from.
        batch_size: clips generated at once.
        embeddings: each gives distances, and what else it can; none is log-mel statistics.
        teacher: whose codec and text encoder are used, and whose own samples ``trajectory_error`` compares with.
        zero: the undistilled teacher at its full steps.
        at_infinity: also extrapolate Frechet distances to infinitely many generated clips; the reference stays.
            Left out where there are fewer than four clips, or eight rows, for each dimension of an embedding.
        kadtk: also compute kernel distances as the package kadtk does.
        cache: folder that keeps the reference's rows and the latents of undistilled models; none makes them anew.
        rank: of this process.
        world_size: number of processes.
        device: where networks run.
        on_batch: told after each batch how many clips are done.
        precision: the context that networks sample in; codec and embeddings stay in full precision.
    """

    def __init__(
        self,
        clips: Clips,
        *,
        num_captions: int,
        batch_size: int,
        embeddings: Sequence[Embedding] = (),
        teacher: TextToAudioModel,
        zero: System,
        at_infinity: bool = False,
        kadtk: bool = False,
        cache: Path | None = None,
        rank: int = 0,
        world_size: int = 1,
        device: torch.device | str = "cpu",
        on_batch: Callable[[int], object] = lambda _: None,
        precision: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        self.precision = precision
        self.clips = clips
        self.num_captions = min(num_captions, len(clips))
        self.teacher = teacher
        self.zero = zero
        self.rank, self.world_size = rank, world_size
        self.device = torch.device(device)
        self.on_batch = on_batch
        self.at_infinity, self.kadtk = at_infinity, kadtk
        self.codec = teacher.codec.to(self.device)
        self.embeddings = [embedding.to(self.device) for embedding in embeddings or [LogMelStatistics()]]
        self._cache = SampleCache(cache and cache / "samples")
        self._row_cache = RowCache(cache and cache / "rows")
        self._decoder = (
            "" if cache is None else f"decoded by {folder_sha256(teacher.folder)}, torch {torch.__version__}"
        )
        references = self._reference_rows(self._row_cache, batch_size)
        self.measures = [
            self._measures(embedding, reference)
            for embedding, reference in zip(self.embeddings, references, strict=True)
        ]
        self.rows: dict[str, ClipRows] = {}
        mine = list(range(self.num_captions))[rank::world_size]
        self.batches = [mine[i : i + batch_size] for i in range(0, len(mine), batch_size)]
        conditioner = teacher.conditioner.to(self.device)
        self.conditioning = [conditioner([clips.captions(i)[0] for i in batch]) for batch in self.batches]
        self.null: Conditioning = conditioner.null()
        self._zero_sampled: dict[int, Sampled] = {}
        self._denoiser: tuple[Path, Denoiser] | None = None

    @torch.no_grad()
    def score(
        self,
        system: System,
        *,
        seed: int,
        on_clip: Callable[[int, Tensor], None] = lambda _i, _wave: None,
        num_heard: int = 0,
    ) -> Score:
        """One repeat of one system.

        Args:
            system: that is scored.
            seed: of the sampling noise.
            on_clip: receives (clip number, waveform) of this rank's clips among the first ``num_heard``.
            num_heard: how many clips are decoded in any case.
        """
        cache = RowCache(None) if system.weighting else self._row_cache
        stores = self._stores()
        trajectory = RowStore(1).to(self.device)
        zero = self._sample(self.zero, seed)
        sampled = self._sample(system, seed)
        for batch, x, zero_x in zip(self.batches, sampled.latents, zero.latents, strict=True):
            decode = functools.cache(partial(self.codec.decode, x))  # not at all where all rows are kept
            for embedding, store in zip(self.embeddings, stores, strict=True):
                make, kind = partial(self._embed, embedding, decode), self._decoder
                store.update(cache.get(make, embedding, kind, x), batch)
            errors = (x - zero_x).square().flatten(1).mean(1)
            trajectory.update(Features(errors[:, None, None]), batch)
            if batch[0] < num_heard:
                for clip, wave in zip(batch, decode(), strict=True):
                    if clip < num_heard:
                        on_clip(clip, wave)
        found = [store.compute() for store in stores]
        self.rows = {embedding.name: rows for embedding, rows in zip(self.embeddings, found, strict=True)}
        metrics: dict[str, float] = {}
        for measures in self.measures:
            metrics |= measures(self.rows[measures.embedding.name])
        self.rows[TRAJECTORY_ERROR] = trajectory.compute()
        metrics |= {TRAJECTORY_ERROR: mean(self.rows[TRAJECTORY_ERROR]), "seconds_per_clip": sampled.seconds_per_clip}
        return system.score(seed=seed, num_clips=self.num_captions, nfe=sampled.nfe, metrics=metrics)

    def _embed(self, embedding: Embedding, decode: Callable[[], Tensor]) -> Features:
        """Features of generated sound, which is heard as its file would be."""
        return embed(embedding, embedding.reading.as_file(decode()), sample_rate=self.codec.sample_rate)

    def halves(self) -> Score:
        """How far the two halves of the reference are from one another: equal sound, but of other captions."""
        metrics: dict[str, float] = {}
        for measures in self.measures:
            even, odd = (measures.reference.at(torch.arange(half, len(self.clips), 2)) for half in (0, 1))
            metrics |= Measures(measures.embedding, odd).distances(even)
        return Score("reference", "", 0, 0, "", 0.0, 0, 0, len(self.clips), metrics, sampler="")

    def _sample(self, system: System, seed: int) -> Sampled:
        """This rank's clips of a system; those of the undistilled teacher are kept."""
        if system == self.zero and seed in self._zero_sampled:
            return self._zero_sampled[seed]
        cache = SampleCache(None) if system.weighting else self._cache
        found = []
        with self.precision():
            for batch, conditioning in zip(self.batches, self.conditioning, strict=True):
                noise = noise_of(batch, seed=seed, shape=self.codec.latent_shape).to(self.device)
                found.append(
                    cache.get(
                        partial(self._sample_batch, system, noise, conditioning),
                        model=system.folder,
                        sampler=system.sampler,
                        num_steps=system.num_steps,
                        guidance_scale=system.sampling_scale,
                        noise=noise,
                        conditioning=conditioning,
                        null=self.null,
                    )
                )
                self.on_batch(len(batch))
        nfe = sum(batch.nfe for batch in found) // max(1, sum(map(len, self.batches)))
        seconds = statistics.median(batch.seconds for batch in found) if found else 0.0
        sampled = Sampled([batch.latents for batch in found], nfe, seconds)
        if system == self.zero:
            self._zero_sampled[seed] = sampled
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
        """Seconds, when the device has done all that it was told."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def _load(self, folder: Path) -> Denoiser:
        """The denoiser of a folder; the last one used stays loaded."""
        if folder == self.teacher.folder:
            return self.teacher.denoiser.to(self.device).eval()
        if self._denoiser is None or self._denoiser[0] != folder:
            self._denoiser = (folder, load_denoiser(folder).to(self.device).eval())
        return self._denoiser[1]

    def _stores(self) -> list[RowStore]:
        return [RowStore(embedding.num_features).to(self.device) for embedding in self.embeddings]

    @torch.no_grad()
    def _reference_rows(self, cache: RowCache, batch_size: int) -> list[ClipRows]:
        """What each embedding makes of all reference clips."""
        stores = self._stores()
        mine = range(self.rank, len(self.clips), self.world_size)
        for first in range(0, len(mine), batch_size):
            for clips, waveform, rate, is_recorded in self._reference(mine[first : first + batch_size]):
                for embedding, store in zip(self.embeddings, stores, strict=True):
                    heard = waveform if is_recorded else embedding.reading.as_file(waveform)
                    store.update(cache.embed(embedding, heard, sample_rate=rate), clips)
        return [store.compute() for store in stores]

    @torch.no_grad()
    def _measures(self, embedding: Embedding, reference: ClipRows) -> Measures:
        captions = None
        if isinstance(embedding, ReadsCaptions):
            captions = embedding.text([self.clips.captions(i)[0] for i in range(self.num_captions)]).double().cpu()
        return Measures(embedding, reference, captions=captions, at_infinity=self.at_infinity, kadtk=self.kadtk)

    def _reference(self, clips: Sequence[int]) -> Iterator[tuple[Sequence[int], Tensor, int, bool]]:
        """The sound of reference clips, its rate, and whether it was recorded.

        Recordings come one by one, since their lengths differ. Other sound is as long as what is generated, and heard
        in 16 bit as that is: silence would tell the two apart otherwise.
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
