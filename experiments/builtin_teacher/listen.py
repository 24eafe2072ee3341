"""Does the built-in teacher do what captions say? A classifier trained on real soundscapes listens to it.

``python -m experiments.builtin_teacher.listen [MODEL] [STEPS]`` asks the package's listener the questions of
``soundscape_questions.py``: on soundscapes that it never heard, which says how well it hears, and on generated sound,
which says how well the model did. Guessing the most frequent answer is printed beside both.

``python -m experiments.builtin_teacher.listen train [FILE]`` trains the listener anew, and writes its weights over
those of the package or to FILE (a few minutes on one core).
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from bsa_lightning.common.files import write_tensors
from bsa_lightning.data.soundscape_questions import ASKED, NUM_ANSWERS, answers
from bsa_lightning.data.soundscapes import Soundscapes
from bsa_lightning.evaluation.embeddings.soundscape_listener import (
    NUM_SAMPLES,
    WEIGHTS,
    ListenerNetwork,
    SoundscapeListener,
)
from bsa_lightning.generation.from_noise import generate, noise_of
from bsa_lightning.models.loading import load_parts
from bsa_lightning.models.mel import LogMel

LENGTH = {"sample_rate": 16_000, "num_samples": NUM_SAMPLES}
TRAIN, TEST = Soundscapes(8000, seed=300), Soundscapes(256, seed=301)


def truth_of(clips: Soundscapes) -> Tensor:
    """The true answers (clips, questions)."""
    return torch.tensor([answers(clips.soundscape(i)) for i in range(len(clips))])


def train(path: Path, epochs: int = 5) -> None:
    """Trains on the training soundscapes, at levels that vary a little, and writes the weights in float16."""
    torch.manual_seed(0)
    log_mel, truth = LogMel(), truth_of(TRAIN)
    mels = torch.cat([log_mel(TRAIN.waveform(i, **LENGTH)[None]) for i in range(len(TRAIN))])
    network = ListenerNetwork()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.01)
    steps = epochs * len(mels) // 64
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for step in range(steps):
        batch = torch.randint(len(mels), (64,))
        heard = mels[batch] + 0.3 * torch.randn(64, 1, 1)
        losses = [nn.functional.cross_entropy(y, truth[batch, i]) for i, y in enumerate(network(heard))]
        loss = torch.stack(losses).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            print(f"step {step} of {steps}: loss {loss.item():.3f}", flush=True)
    weights = {
        name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in network.state_dict().items()
    }
    write_tensors(path, weights)


@torch.no_grad()
def right(waves: Tensor) -> dict[str, float]:
    """Share of right answers to each question, of the test clips."""
    listener, truth = SoundscapeListener(), truth_of(TEST)
    rows = torch.cat([listener(wave).rows[:, 0] for wave in waves.split(32)])
    parts = rows.split([NUM_ANSWERS[i] for i in ASKED.values()], dim=1)
    return {
        name: float((part.argmax(1) == truth[:, i]).float().mean())
        for part, (name, i) in zip(parts, ASKED.items(), strict=True)
    }


@torch.no_grad()
def generated(model: str, num_steps: int | None) -> Tensor:
    """What a model makes of the test captions (clips, samples)."""
    teacher, waves = load_parts(model), []
    for first in range(0, len(TEST), 32):
        clips = range(first, first + 32)
        waves.append(
            generate(
                denoiser=teacher.denoiser.eval(),
                codec=teacher.codec,
                conditioning=teacher.conditioner([TEST.captions(i)[0] for i in clips]),
                null=teacher.conditioner.null(),
                guidance_scale=teacher.sampling.scale(),
                num_steps=teacher.sampling.num_steps if num_steps is None else num_steps,
                noise=noise_of(clips, seed=0, shape=teacher.codec.latent_shape),
            )
        )
    return torch.cat(waves)


def main(model: str = "tiny", steps: str = "") -> None:
    """Prints the table, or trains."""
    if model == "train":
        train(Path(steps) if steps else WEIGHTS)
        return
    real = right(torch.stack([TEST.waveform(i, **LENGTH) for i in range(len(TEST))]))
    made = right(generated(model, int(steps) if steps else None))
    print(f"\n{'question':16}{'guess':>8}{'real':>8}{'made':>8}   (share of right answers, {len(TEST)} captions)")
    truth = truth_of(TEST).numpy()
    for name, i in ASKED.items():
        print(f"{name:16}{np.bincount(truth[:, i]).max() / len(truth):8.2f}{real[name]:8.2f}{made[name]:8.2f}")
    guess = np.mean([np.bincount(truth[:, i]).max() / len(truth) for i in ASKED.values()])
    print(f"{'obedience':16}{guess:8.2f}{np.mean(list(real.values())):8.2f}{np.mean(list(made.values())):8.2f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
