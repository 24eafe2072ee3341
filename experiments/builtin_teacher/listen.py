"""Does the built-in teacher do what captions say? A classifier trained on real soundscapes listens to it.

Run as ``python -m experiments.builtin_teacher.listen [MODEL] [STEPS]``. The classifier hears log-mels of
soundscapes and answers the questions of ``text.py``; on held-out soundscapes it says how well it hears, on
generated sound how well the model did. Guessing the most frequent answer is printed beside both.
"""

from __future__ import annotations

import sys
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from bsa_lightning.data.soundscapes import Soundscapes, draw
from bsa_lightning.evaluation.generation import generate, noise_of
from bsa_lightning.teachers.folder import load_teacher
from bsa_lightning.teachers.mel import LogMel
from experiments.builtin_teacher.text import BACKGROUND_QUESTIONS, EVENT_QUESTIONS, answers

CLASSES = (*EVENT_QUESTIONS, *EVENT_QUESTIONS, *BACKGROUND_QUESTIONS)
ASKED = {"first source": 0, "first count": 1, "first pitch": 2, "second source": 6, "background": 12}
LENGTH = {"sample_rate": 16_000, "num_samples": 40_960}
TRAIN, TEST = Soundscapes(4000, seed=300), Soundscapes(256, seed=301)


class Listener(nn.Module):
    """Convolutions over log-mels (batch, 256, 64), then one linear answer a question."""

    def __init__(self) -> None:
        super().__init__()
        widths = (1, 24, 48, 96, 128)
        layers: list[nn.Module] = []
        for inside, outside in pairwise(widths):
            layers += [nn.Conv2d(inside, outside, 5, stride=2, padding=2), nn.BatchNorm2d(outside), nn.ReLU()]
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.3), nn.Linear(128 * 16 * 4, 256), nn.ReLU())
        self.heads = nn.ModuleList([nn.Linear(256, classes) for classes in CLASSES])

    def forward(self, mel: Tensor) -> list[Tensor]:
        state = self.body((mel[:, None] + 6) / 4)
        return [head(state) for head in self.heads]


def truth_of(clips: Soundscapes) -> Tensor:
    """(clips, questions): the true answers."""
    return torch.tensor([answers(draw(np.random.default_rng([clips.seed, i]))) for i in range(len(clips))])


def mels_of(clips: Soundscapes) -> Tensor:
    """(clips, 256, 64)."""
    log_mel = LogMel()
    return torch.cat([log_mel(clips.waveform(i, **LENGTH)[None]) for i in range(len(clips))])


def train(epochs: int = 8) -> Listener:
    """A listener that has heard the training soundscapes, at levels that vary a little."""
    torch.manual_seed(0)
    mels, truth = mels_of(TRAIN), truth_of(TRAIN)
    listener = Listener()
    optimizer = torch.optim.AdamW(listener.parameters(), lr=1e-3, weight_decay=0.01)
    steps = epochs * len(mels) // 64
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for step in range(steps):
        batch = torch.randint(len(mels), (64,))
        heard = mels[batch] + 0.3 * torch.randn(64, 1, 1)
        loss = sum(nn.functional.cross_entropy(y, truth[batch, i]) for i, y in enumerate(listener(heard)))
        assert isinstance(loss, Tensor)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            print(f"step {step} of {steps}: loss {loss.item():.3f}", flush=True)
    return listener.eval()


@torch.no_grad()
def right(listener: Listener, mels: Tensor, truth: Tensor) -> dict[str, float]:
    """Share of right answers to each question."""
    replies = listener(mels)
    return {name: float((replies[i].argmax(1) == truth[:, i]).float().mean()) for name, i in ASKED.items()}


@torch.no_grad()
def generated_mels(model: str, num_steps: int | None) -> Tensor:
    """What a model makes of the test captions."""
    teacher, log_mel, mels = load_teacher(model), LogMel(), []
    for first in range(0, len(TEST), 32):
        clips = range(first, first + 32)
        wave = generate(
            denoiser=teacher.denoiser.eval(),
            codec=teacher.codec,
            conditioning=teacher.conditioner([TEST.captions(i)[0] for i in clips]),
            null=teacher.conditioner.null(),
            guidance_scale=teacher.sampling.scale(),
            num_steps=teacher.sampling.num_steps if num_steps is None else num_steps,
            noise=noise_of(clips, seed=0, shape=teacher.codec.latent_shape),
        )
        wave = 0.5 * wave / wave.abs().amax(1, keepdim=True).clamp(min=1e-6)
        mels.append(log_mel(wave))
    return torch.cat(mels)


def main(model: str = "tiny", steps: str = "") -> None:
    """Prints the table."""
    listener, truth = train(), truth_of(TEST)
    real = right(listener, mels_of(TEST), truth)
    made = right(listener, generated_mels(model, int(steps) if steps else None), truth)
    print(f"\n{'question':16}{'guess':>8}{'real':>8}{'made':>8}   (share of right answers, {len(TEST)} captions)")
    for name, i in ASKED.items():
        guess = float(truth[:, i].bincount().max()) / len(truth)
        print(f"{name:16}{guess:8.2f}{real[name]:8.2f}{made[name]:8.2f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
