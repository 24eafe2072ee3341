"""EnCodec (Défossez et al. 2022), a codec of speech, music and other sound, as an embedding."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from bsa_lightning.evaluation.embeddings.base import Features
from bsa_lightning.evaluation.embeddings.package_code import WithoutDraws
from bsa_lightning.evaluation.embeddings.published_weights import (
    Pretrained,
    Published,
    fill,
    located,
    refuse_other_rate,
)
from bsa_lightning.evaluation.embeddings.reading import Reading

_PAGE = "https://github.com/facebookresearch/encodec"
_URL = "https://dl.fbaipublicfiles.com/encodec/v0"
PUBLISHED = {
    24_000: Published(
        "encodec_24khz-d7cc33bc.th",
        _PAGE,
        f"{_URL}/encodec_24khz-d7cc33bc.th",
        "d7cc33bcf1aad7f2dad9836f36431530744abeace3ca033005e3290ed4fa47bf",
    ),
    48_000: Published("encodec_48khz-7e698e3e.th", _PAGE, f"{_URL}/encodec_48khz-7e698e3e.th", "7e698e3e"),
}
_HOP = 320


class EnCodec(Pretrained):
    """A row of 128 numbers for each 320 samples, before they are quantised: 75 a second at 24 kHz, 150 at 48 kHz.

    The networks are those of the package encodec, used as frechet-audio-distance uses them: at 48 kHz, where the
    network has two channels, both are the same sound, and neither its level nor its length is changed. Columns of the
    network at 24 kHz end in ``encodec``, those of the other in ``encodec_48k``.

    Args:
        weights: the file as EnCodec publishes it (encodec_24khz-d7cc33bc.th at 24 kHz), or the folder that it is kept
            in; ``None`` is the folder ``bsa-lightning/weights`` in the user's cache folder. Where the file is not
            there, it is fetched. A file of another name is taken for weights of your own: only its names, shapes and
            values are checked, not whether the numbers are the published ones.
        sample_rate: the sample rate of the network, in Hz.
        reading: the conversion of sound to the embedding's input; ``None`` is :class:`Plain`.

    Raises:
        UserError: if the file cannot be had, is damaged or another one.
    """

    num_features = 128

    def __init__(
        self,
        weights: Path | None = None,
        sample_rate: Literal[24_000, 48_000] = 24_000,
        reading: Reading | None = None,
    ) -> None:
        super().__init__(reading)
        refuse_other_rate(sample_rate, PUBLISHED)
        self.sample_rate = sample_rate
        self.name = "encodec" if sample_rate == 24_000 else "encodec_48k"
        self.metric = f"fd_{self.name}"
        self.weights = located(weights, PUBLISHED[sample_rate])
        with warnings.catch_warnings(), WithoutDraws():
            warnings.simplefilter("ignore", FutureWarning)  # of torch, about the weight norm that the package uses
            from encodec import EncodecModel

            make = EncodecModel.encodec_model_24khz if sample_rate == 24_000 else EncodecModel.encodec_model_48khz
            model = make(pretrained=False)
        self.fingerprint = f"{self.name}-1-{fill(model, self.weights, PUBLISHED[sample_rate])}"
        self.network = model.encoder
        self.num_channels = model.channels
        self.eval()

    def num_rows(self, num_samples: int) -> int:
        return -(-num_samples // _HOP)

    @torch.no_grad()
    def forward(self, waveform: Tensor) -> Features:
        rows: Tensor = self.network(waveform[:, None].expand(-1, self.num_channels, -1))
        return Features(rows.mT)
