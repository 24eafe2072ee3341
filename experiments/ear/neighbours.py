"""Do embeddings tell kinds of sound apart? Each test clip of ESC-10 takes the class of its nearest training clip.

``python -m experiments.ear.neighbours WEIGHTS`` compares YAMNet, with a file of its weights, and log-mel statistics on
whole recordings, and prints YAMNet's class agreement with their captions, and with those of other clips.

``python -m experiments.ear.neighbours WEIGHTS MODEL`` hears the test clips through the codec of a model too, as long as
its clips are: their copies, beside originals of the same length, take the classes of the original training clips; and
so do the samples that the model makes of the test captions, with as many steps and as much guidance as it is made for.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import normalize

from bsa_lightning import load_model
from bsa_lightning.data.audio import read
from bsa_lightning.data.captions import AudioCapsManifest
from bsa_lightning.evaluation.embeddings.base import Embedding
from bsa_lightning.evaluation.embeddings.log_mel import LogMelStatistics
from bsa_lightning.evaluation.embeddings.yamnet import YAMNet
from bsa_lightning.models.loading import load_codec

DATA = Path("data/esc10")
RATE = 16_000
NUM_SEEDS = 5
"""The number of sampling seeds of a model's samples."""
FULL_SCALE = 1 - 2.0**-15
"""The largest value of a sample of 16 bits."""
CLASSES = (
    ("dog",), ("rain",), ("wave", "sea"), ("baby", "infant"), ("clock",), ("sneez",), ("helicopter",), ("chainsaw",),
    ("rooster",), ("fire",),
)  # fmt: skip
"""Words of the captions that tell the ten classes."""


def class_of(caption: str) -> int:
    """Returns the class of a caption of ESC-10, of which it has a word."""
    return next(i for i, words in enumerate(CLASSES) if any(word in caption.lower() for word in words))


def nearest(train: Tensor, classes: Tensor, rows: Tensor) -> Tensor:
    """Returns the class of the nearest training clip of each row."""
    return classes[torch.cdist(rows, train).argmin(1)]


def means(embedding: Embedding, waves: Sequence[Tensor]) -> Tensor:
    """Returns the mean row of each clip."""
    return torch.stack([embedding(wave[None]).rows[0].mean(0) for wave in waves])


def shares(embedding: Embedding, sounds: dict[str, list[Tensor]], classes: dict[str, Tensor]) -> dict[str, float]:
    """Returns the share of clips of each set that take their own class from the set "train"."""
    rows = {name: means(embedding, waves) for name, waves in sounds.items()}
    if isinstance(embedding, YAMNet):
        rows = {name: normalize(each, dim=1) for name, each in rows.items()}
    else:
        centre, scale = rows["train"].mean(0), rows["train"].std(0)
        rows = {name: (each - centre) / scale for name, each in rows.items()}
    return {
        name: float((nearest(rows["train"], classes["train"], rows[name]) == classes[name]).double().mean())
        for name in rows
        if name != "train"
    }


def agreement(embedding: YAMNet, waves: Sequence[Tensor], captions: Sequence[str]) -> tuple[float, float]:
    """Returns the class agreement with captions, and its mean over ten shufflings of them."""
    logits = torch.cat([embedding(wave[None]).logits for wave in waves]).double()
    named = embedding.text(captions)
    generator = torch.Generator().manual_seed(0)
    orders = [torch.randperm(len(named), generator=generator) for _ in range(10)]
    others = [embedding.judge(logits, named[order]).mean() for order in orders]
    return float(embedding.judge(logits, named).mean()), float(torch.stack(others).mean())


def loudness(waves: Sequence[Tensor]) -> tuple[float, float]:
    """Returns the median of the peaks of clips, and the share of their values that are at full scale."""
    both = torch.stack(list(waves)).abs()
    return float(both.amax(1).median()), float((both >= FULL_SCALE).double().mean())


def main(weights: str, model: str | None = None) -> None:
    """Prints the shares."""
    yamnet = YAMNet(Path(weights))
    clips = {name: AudioCapsManifest(DATA / f"{name}.csv", DATA / "audio") for name in ("train", "test")}
    captions = {name: [each.captions(i)[0] for i in range(len(each))] for name, each in clips.items()}
    classes = {name: torch.tensor([class_of(caption) for caption in each]) for name, each in captions.items()}
    if model is None:
        sounds = {
            name: [read(each.source(i), sample_rate=RATE) for i in range(len(each))] for name, each in clips.items()
        }
        agreed = agreement(yamnet, sounds["train"] + sounds["test"], captions["train"] + captions["test"])
        print(f"class agreement {agreed[0]:.3f}, with captions of other clips {agreed[1]:.3f}")
    else:
        codec = load_codec(model)
        size = {"sample_rate": codec.sample_rate, "num_samples": codec.num_samples}
        sounds = {name: [each.waveform(i, **size) for i in range(len(each))] for name, each in clips.items()}
        latents = (codec.encode(wave[None]).mean for wave in sounds["test"])
        sounds["copies"] = [codec.decode(each)[0] for each in latents]
        for name in ("test", "copies"):
            peaks, cut = loudness(sounds[name])
            print(f"{name}: median peak {peaks:.3f}, share of values at full scale {cut:.6f}")
        teacher = load_model(model)
        made = [teacher(captions["test"], seed=seed).audios for seed in range(NUM_SEEDS)]
        sounds["samples"] = [torch.as_tensor(wave) for each in made for wave in each]
        classes |= {"copies": classes["test"], "samples": classes["test"].repeat(NUM_SEEDS)}
    for ear in (yamnet, LogMelStatistics()):
        found = shares(ear, sounds, classes)
        print(ear.name, ", ".join(f"{name} {share:.4f}" for name, share in found.items()))


if __name__ == "__main__":
    with torch.no_grad():
        main(*sys.argv[1:])
