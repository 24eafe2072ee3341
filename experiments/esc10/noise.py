"""How far from the test clips are white noise and the codec's own copies of them? Both ends of the scale.

Run as ``python -m experiments.esc10.noise [MODEL]``, beside ``scores.csv`` of the ladder.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from bsa_lightning.data.captions import AudioCapsManifest
from bsa_lightning.evaluation.embeddings.log_mel import LogMelStatistics
from bsa_lightning.evaluation.metrics.frechet import frechet_distance_of_rows
from bsa_lightning.models.loading import load_codec


def main(model: str = "tiny") -> None:
    """Prints the two distances."""
    codec, embedding = load_codec(model), LogMelStatistics()
    clips = AudioCapsManifest(Path("data/esc10/test.csv"), Path("data/esc10/audio"))
    size = {"sample_rate": codec.sample_rate, "num_samples": codec.num_samples}
    waves = torch.stack([clips.waveform(i, **size) for i in range(len(clips))])
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(waves.shape, generator=generator) - 0.5
    for name, made in (("white noise", noise), ("the codec's copies", codec.decode(codec.encode(waves).mean))):
        heard = embedding.reading.as_file(made)
        rows = [embedding(sound).rows.flatten(0, 1) for sound in (waves, heard)]
        print(f"{name}: fd_logmel {float(frechet_distance_of_rows(*rows)):.3f} ({len(clips)} clips)")


if __name__ == "__main__":
    main(*sys.argv[1:])
