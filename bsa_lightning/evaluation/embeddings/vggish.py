"""VGGish (Hershey et al. 2017), whose raw output published Frechet audio distances are computed from."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from bsa_lightning.evaluation.embeddings.base import Features
from bsa_lightning.evaluation.embeddings.log_mel import LogMelStatistics
from bsa_lightning.evaluation.embeddings.published_weights import Pretrained, Published, fill, located
from bsa_lightning.evaluation.embeddings.reading import Reading

PUBLISHED = Published(
    "vggish-10086976.pth",
    "https://github.com/harritaylor/torchvggish/releases/tag/v0.1",
    "https://github.com/harritaylor/torchvggish/releases/download/v0.1/vggish-10086976.pth",
    "10086976245803799d9194e9a73d9b6c1549c71d1b80106f5cade5608a561f4b",
)


class VGGish(Pretrained):
    """One row of 128 numbers for each 0.96 s at 16 kHz, before the last activation and without PCA, as for FAD.

    Windows do not overlap; an incomplete window at the end is dropped, and a clip shorter than one window is padded
    with silence.

    Args:
        weights: the file vggish-10086976.pth, as torchvggish publishes it, or the folder that it is kept in; ``None``
            is the folder ``bsa-lightning/weights`` in the user's cache folder. Where the file is not there, it is
            fetched. A file of another name is taken for weights of your own: only its names, shapes and values are
            checked, not whether the numbers are the published ones.
        reading: the conversion of sound to the embedding's input; ``None`` is :class:`Plain`, published scores need
            another.

    Raises:
        UserError: if the file cannot be had, is damaged or another one.
    """

    name = "vggish"
    metric = "fad_vggish"
    sample_rate = 16_000
    num_features = 128

    def __init__(self, weights: Path | None = None, reading: Reading | None = None) -> None:
        super().__init__(reading)
        self.weights = located(weights, PUBLISHED)
        self.front_end = LogMelStatistics()
        with torch.device("meta"):
            self.network = _Network()
        self.fingerprint = f"vggish-1-{fill(self.network, self.weights, PUBLISHED)}"
        self.eval()

    def num_rows(self, num_samples: int) -> int:
        return self.front_end.num_rows(num_samples)

    @torch.no_grad()
    def forward(self, waveform: Tensor) -> Features:
        patches = self.front_end.patches(waveform)
        rows = self.network(patches.flatten(0, 1)[:, None])
        return Features(rows.unflatten(0, patches.shape[:2]))


class _Network(nn.Module):
    """The network, from patches (n, 1, 96, 64) to (n, 128); its parts have the names of the file."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 1
        for stage in ((64,), (128,), (256, 256), (512, 512)):
            for width in stage:
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
                channels = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.embeddings = nn.Sequential(
            nn.Linear(6 * 4 * 512, 4096), nn.ReLU(), nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, 128)
        )

    def forward(self, patches: Tensor) -> Tensor:
        channels_last = self.features(patches).permute(0, 2, 3, 1)  # the order of TensorFlow, as in training
        rows: Tensor = self.embeddings(channels_last.flatten(1))
        return rows
