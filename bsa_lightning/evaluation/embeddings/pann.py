"""PANNs' Cnn14 (Kong et al. 2020), whose features and logits published FD, KL and IS are computed from."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from bsa_lightning.evaluation.embeddings.base import Features
from bsa_lightning.evaluation.embeddings.package_code import WithoutDraws, import_alone
from bsa_lightning.evaluation.embeddings.published_weights import (
    Pretrained,
    Published,
    fill,
    located,
    refuse_other_rate,
)
from bsa_lightning.evaluation.embeddings.reading import Reading

_PAGE = "https://zenodo.org/records/3987831"


def _published(name: str, sha256: str) -> Published:
    return Published(name, _PAGE, f"{_PAGE}/files/{name.replace('=', '%3D')}?download=1", sha256, entry="model")


PUBLISHED = {
    8_000: _published("Cnn14_8k_mAP=0.416.pth", ""),
    16_000: _published("Cnn14_16k_mAP=0.438.pth", "e2ee543a27919542c2ea03eabaa70b24dcd4e6c8e05621de6b67a94e4c5058e6"),
    32_000: _published("Cnn14_mAP=0.431.pth", "0dc499e40e9761ef5ea061ffc77697697f277f6a960894903df3ada000e34b31"),
}
_CLASSES = {8_000: "Cnn14_8k", 16_000: "Cnn14_16k", 32_000: "Cnn14"}


class PANN(Pretrained):
    """One row of 2048 numbers for each clip (after fc1 and its ReLU), and the logits of AudioSet's 527 classes.

    The networks are those of frechet-audio-distance, with their spectrograms in float64. A clip shorter than 2 s is
    padded with silence at its end, since Cnn14's poolings need that length. Columns of the network at 16 kHz end in
    ``pann``, those of the others in ``pann_8k`` and ``pann_32k``.

    Args:
        weights: the file as PANNs publish it (Cnn14_16k_mAP=0.438.pth at 16 kHz), or the folder that it is kept in;
            ``None`` is the folder ``bsa-lightning/weights`` in the user's cache folder. Where the file is not there, it
            is fetched, except that for 8 kHz, whose digest is not known here. A file of another name is taken for
            weights of your own: only its names, shapes and values are checked, not whether the numbers are the
            published ones.
        sample_rate: the sample rate of the network, in Hz.
        reading: the conversion of sound to the embedding's input; ``None`` is :class:`Plain`, published scores need
            another.

    Raises:
        UserError: if the file cannot be had, is damaged or another one.
    """

    num_features = 2048
    is_classifier = True

    def __init__(
        self,
        weights: Path | None = None,
        sample_rate: Literal[8_000, 16_000, 32_000] = 16_000,
        reading: Reading | None = None,
    ) -> None:
        super().__init__(reading)
        refuse_other_rate(sample_rate, PUBLISHED)
        self.sample_rate = sample_rate
        kilohertz = sample_rate // 1000
        self.name = "pann" if sample_rate == 16_000 else f"pann_{kilohertz}k"
        self.metric = f"fd_{self.name}"
        self.weights = located(weights, PUBLISHED[sample_rate])
        make = getattr(import_alone("frechet_audio_distance", "models", "pann"), _CLASSES[sample_rate])
        with WithoutDraws():
            self.network = make(sample_rate, 32 * kilohertz, 10 * kilohertz, 64, 50, sample_rate // 2, 527)
        self.fingerprint = f"{self.name}-1-{fill(self.network, self.weights, PUBLISHED[sample_rate])}"
        _in_float64(self.network.spectrogram_extractor, self.network.logmel_extractor)
        self.eval()

    def num_rows(self, num_samples: int) -> int:  # noqa: ARG002
        return 1

    @torch.no_grad()
    def forward(self, waveform: Tensor) -> Features:
        waveform = pad(waveform, (0, max(0, 2 * self.sample_rate - waveform.shape[-1])))
        embedding = self.network(waveform)["embedding"]
        return Features(embedding[:, None], self.network.fc_audioset(embedding))


def _in_float64(first: nn.Module, last: nn.Module) -> None:
    """Makes two modules that follow each other compute in float64, between float32 before and after.

    cuDNN convolves float32 in TF32, whose errors in loud bands exceed the values of quiet ones.
    """
    first.double().register_forward_pre_hook(lambda _, inputs: (inputs[0].double(),))
    last.double().register_forward_hook(lambda _, __, output: output.float())
