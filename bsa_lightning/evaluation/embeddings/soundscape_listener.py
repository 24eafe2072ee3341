"""A classifier of the built-in soundscapes, which measures whether generated sound obeys its caption."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

from bsa_lightning.common.files import sha256_of_file
from bsa_lightning.data.audio import fit_length, normalise
from bsa_lightning.data.soundscape_questions import ASKED, NUM_ANSWERS, answers, read_caption
from bsa_lightning.data.synthesis import SAMPLE_RATE
from bsa_lightning.evaluation.embeddings.base import Features
from bsa_lightning.evaluation.embeddings.published_weights import Pretrained
from bsa_lightning.evaluation.embeddings.reading import Reading
from bsa_lightning.evaluation.metrics.kernel import NoValueError
from bsa_lightning.models.mel import LogMel

NUM_SAMPLES = 40_960
"""The number of samples of the network's input: 2.56 s."""
WEIGHTS = Path(__file__).with_name("soundscape_listener.safetensors")
"""The weights of the network, a part of the package; ``experiments/builtin_teacher/listen.py`` trains them."""


class ListenerNetwork(nn.Module):
    """A convolutional network from log-mel spectrograms (batch, 256, 64) to scores of the answers to each question."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inside, outside in pairwise((1, 24, 48, 64, 64)):
            layers += [nn.Conv2d(inside, outside, 5, stride=2, padding=2), nn.BatchNorm2d(outside), nn.ReLU()]
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.3), nn.Linear(64 * 16 * 4, 128), nn.ReLU())
        self.heads = nn.ModuleList([nn.Linear(128, number) for number in NUM_ANSWERS])

    def forward(self, mel: Tensor) -> list[Tensor]:
        """Returns the scores (batch, answers) for each question, in the order of ``answers``."""
        state = self.body((mel[:, None] + 6) / 4)
        return [head(state) for head in self.heads]


class SoundscapeListener(Pretrained):
    """A classifier of soundscapes that answers five questions: source, number, pitch, second source, and background.

    Obedience is the share of right answers, from 0 to 1, over clips and questions; the right answer is what the caption
    says. The network was trained on soundscapes alone, so that other captions have no obedience. Its input is the first
    2.56 s of a clip, with a normalised level. Its rows are the scores of all answers, which no distance is computed
    from: they mean nothing for other sound, and there is one row for each clip only.

    Args:
        reading: the conversion of sound to the embedding's input; ``None`` is :class:`Plain`.
    """

    name = "listener"
    metric = None
    caption_metric = "obedience"
    sample_rate = SAMPLE_RATE
    num_features = sum(NUM_ANSWERS[question] for question in ASKED.values())

    def __init__(self, reading: Reading | None = None) -> None:
        from safetensors.torch import load_file

        super().__init__(reading)
        self.log_mel = LogMel(SAMPLE_RATE)
        self.network = ListenerNetwork()
        self.network.load_state_dict(load_file(WEIGHTS))
        self.fingerprint = f"listener-1-{sha256_of_file(WEIGHTS)}"
        self.requires_grad_(False).eval()

    def forward(self, waveform: Tensor) -> Features:
        scores = self.network(self.log_mel(heard(waveform)))
        return Features(torch.cat([scores[question] for question in ASKED.values()], dim=1)[:, None])

    def text(self, captions: Sequence[str]) -> Tensor:
        """Returns the right answers as class indices, (captions, 5); NaN for a caption that is not of a soundscape."""
        found = [read_caption(caption) for caption in captions]
        return torch.tensor(
            [
                [torch.nan] * len(ASKED)
                if soundscape is None
                else [answers(soundscape)[question] for question in ASKED.values()]
                for soundscape in found
            ],
            dtype=torch.float64,
        )

    def judge(self, rows: Tensor, captions: Tensor) -> Tensor:
        """Returns the share of right answers of each row, (n,).

        Args:
            rows: the scores of all answers, (n, num_features).
            captions: the right answers, (n, 5).

        Raises:
            NoValueError: if a caption is not of a soundscape.
        """
        if unknown := int(captions.isnan().any(1).sum()):
            raise NoValueError(
                f"{unknown} of {len(captions)} captions are not worded as those of soundscapes, whose sounds alone the"
                " listener has learnt; score soundscapes, or leave the listener out"
            )
        scores = rows.split([NUM_ANSWERS[question] for question in ASKED.values()], dim=1)
        replies = torch.stack([of_question.argmax(1) for of_question in scores], dim=1)
        return (replies == captions).double().mean(1)


def heard(waveform: Tensor) -> Tensor:
    """Returns the network's input, (batch, 40960), for waveforms (batch, samples): each clip with a peak of 0.5."""
    return torch.stack([fit_length(normalise(wave), num_samples=NUM_SAMPLES) for wave in waveform])
