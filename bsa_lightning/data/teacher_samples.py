"""Captions alone as clips: a teacher samples their latents, so that it can be distilled without any recorded sound."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bsa_lightning.common.errors import UserError
from bsa_lightning.common.ranges import check_number, check_seed
from bsa_lightning.data.captions import read_captions
from bsa_lightning.data.clips import Clips, Encoder
from bsa_lightning.data.order import seeded
from bsa_lightning.diffusion.ddim import sample
from bsa_lightning.models.base import Codec, Conditioner, Posterior, device_of
from bsa_lightning.models.loading import folder_sha256, load_codec, load_conditioner, load_denoiser, read_sampling
from bsa_lightning.models.predictor import predictor

_STREAM = 0x7EAC
"""Separates this noise from that of scores, which is drawn from a seed and the number of a clip."""


class TeacherSamples(Clips):
    """Captions of a file, with latents that a teacher samples by DDIM, guided as it is used.

    The latents are made by ``lightning prepare``, or when a run prepares its store; a store keeps them as posteriors
    without variance. The noise of a latent depends on the seed, the caption and the number of the latent alone, not on
    the order of the file: a longer file, or more latents for each caption, add to a store and keep what is there.

    A caption that is listed several times counts once. The choice of held-out captions depends on their texts alone.
    Captions that differ only in case, punctuation or white space are all held out, or none of them is.

    Args:
        file: a text file with a caption on each line, a CSV file with a column ``caption``, or a file of JSON lines
            with an entry ``captions``.
        teacher: the model that samples: a folder, a hub id, or "tiny" for the built-in teacher.
        num_steps: the number of steps of DDIM, at least 1; ``None`` takes what the teacher was made for.
        guidance_scale: the guidance scale, from 0 to 1000, 1 is no guidance; ``None`` takes what the teacher was made
            for.
        seed: the seed of the noise, from 0 to 2**63 - 1.
        latents_per_caption: the number of latents of each caption, each from noise of its own, at least 1.
        num_held_out: the number of captions that are held out of training, at least 0.
        held_out: whether these clips are the held-out captions; False takes the others.

    Raises:
        UserError: if there is no such file or teacher, a setting is out of its range or one that the teacher cannot be
            sampled with, or no captions are left.
    """

    def __init__(
        self,
        file: Path,
        teacher: str = "tiny",
        num_steps: int | None = None,
        guidance_scale: float | None = None,
        seed: int = 0,
        latents_per_caption: int = 1,
        num_held_out: int = 0,
        held_out: bool = False,
    ) -> None:
        if num_steps is not None:
            check_number("num_steps", num_steps, whole=True, at_least=1)
        check_seed("seed", seed)
        check_number("latents_per_caption", latents_per_caption, whole=True, at_least=1, at_most=2**20)
        check_number("num_held_out", num_held_out, whole=True, at_least=0)
        self.file = Path(file)
        self.teacher = teacher
        self.num_steps = num_steps
        self.guidance_scale = guidance_scale
        self.seed = seed
        self.latents_per_caption = latents_per_caption
        self.num_held_out = num_held_out
        self.held_out = held_out
        own = read_sampling(teacher)
        self._steps = own.num_steps if num_steps is None else num_steps
        self._scale = own.scale(guidance_scale)
        self._guidance_scale = own.guidance_scale if guidance_scale is None else guidance_scale
        train, test = hold_out(distinct_captions(self.file), num_held_out)
        self._captions = test if held_out else train
        if not self._captions:
            part = f"no caption of {file} is" if held_out else f"all {len(test)} captions of {file} are"
            raise UserError(f"num_held_out is {num_held_out}, so that {part} held out; change it")

    def __len__(self) -> int:
        return len(self._captions) * self.latents_per_caption

    def _place(self, i: int) -> tuple[str, int]:
        """The caption of clip ``i``, and the number of its latent: all captions come once before any comes again."""
        number, place = divmod(i, len(self._captions))
        return self._captions[place], number

    def id(self, i: int) -> str:
        caption, number = self._place(i)
        return f"{_digest(caption)[:16]}-{number}"

    def captions(self, i: int) -> list[str]:
        return [self._place(i)[0]]

    @functools.cached_property
    def sampling(self) -> dict[str, Any]:
        return {
            "teacher_sha256": folder_sha256(self.teacher),
            "sampler": "DDIM on the trailing grid",
            "num_steps": self._steps,
            "guidance_scale": self._guidance_scale,
            "seed": self.seed,
        }

    def noise(self, i: int, shape: Sequence[int]) -> Tensor:
        """The standard normal noise that the latent of clip ``i`` is sampled from, of ``shape``, on the CPU."""
        caption, number = self._place(i)
        return torch.randn(*shape, generator=seeded(_STREAM, self.seed, int(_digest(caption)[:15], 16), number))

    def encoder(self, codec: Codec, conditioner: Conditioner) -> Encoder:
        """The function that samples latents, which holds the teacher's network in memory as long as it is kept.

        Raises:
            UserError: if codec or text encoder are not those of the teacher, or it cannot take so many steps.
        """
        for part, theirs, load in (("codec", codec, load_codec), ("text encoder", conditioner, load_conditioner)):
            if load(self.teacher).fingerprint != theirs.fingerprint:
                raise UserError(
                    f'clips.teacher is "{self.teacher}", whose {part} is another than that of the model that prepares'
                    " the latents; name the same model for both"
                )
        device = device_of(codec)
        denoiser, null = load_denoiser(self.teacher).to(device).eval(), conditioner.null().to(device)
        check_number("num_steps", self._steps, at_most=denoiser.schedule.most_steps)

        @torch.no_grad()
        def encode(places: Sequence[int]) -> Posterior:
            conditioning = conditioner([self._place(i)[0] for i in places]).to(device)
            denoise = predictor(denoiser, conditioning, null=null, guidance_scale=self._scale)
            noise = torch.stack([self.noise(i, codec.latent_shape) for i in places]).to(device)
            latents = sample(denoise=denoise, schedule=denoiser.schedule, noise=noise, num_steps=self._steps)
            return Posterior(latents, torch.zeros_like(latents))

        return encode

    def waveform(self, i: int, *, sample_rate: int, num_samples: int, num_channels: int = 1) -> Tensor:
        del i, sample_rate, num_samples, num_channels
        raise UserError(
            "clips are TeacherSamples, which have latents and no sound; to score against a teacher's sound, prepare"
            " them and name PreparedSound with the folder"
        )


def distinct_captions(file: Path) -> list[str]:
    """The captions of a file in their order, each once.

    Raises:
        UserError: if the file does not contain captions or is malformed.
    """
    return list(dict.fromkeys(read_captions(file)))


def hold_out(captions: Sequence[str], num_held_out: int) -> tuple[list[str], list[str]]:
    """Divides captions into those to train on and those to test on, by a digest of their texts.

    Captions that differ in case, punctuation and white space only stay together, so that a few more than
    ``num_held_out`` may be held out.

    Args:
        captions: distinct captions.
        num_held_out: the number of captions to hold out.

    Returns:
        The captions to train on and the held-out ones, each in their order.
    """
    alike: dict[str, list[str]] = {}
    for caption in captions:
        alike.setdefault(" ".join(re.findall(r"\w+", caption.casefold())), []).append(caption)
    held: set[str] = set()
    for key in sorted(alike, key=_digest):
        if len(held) >= num_held_out:
            break
        held.update(alike[key])
    return [c for c in captions if c not in held], [c for c in captions if c in held]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
