"""YAMNet (Plakal and Ellis 2019), a classifier of AudioSet's sounds, whose file of weights has 15 MB."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, pad

from bsa_lightning.evaluation.embeddings.audioset_names import named_classes
from bsa_lightning.evaluation.embeddings.base import Features
from bsa_lightning.evaluation.embeddings.log_mel import HOP, NUM_FRAMES, WINDOW, LogMelBands
from bsa_lightning.evaluation.embeddings.published_weights import Pretrained, Published, fill, located
from bsa_lightning.evaluation.embeddings.reading import Reading
from bsa_lightning.evaluation.embeddings.yamnet_files import read_weights, sha256_of_data
from bsa_lightning.evaluation.metrics.kernel import NoValueError

PUBLISHED = Published(
    "yamnet.h5",
    "https://github.com/tensorflow/models/tree/master/research/audioset/yamnet",
    "https://storage.googleapis.com/audioset/yamnet.h5",
    "13c3308955bbfaef262f175ac9c40e47b134573a93984f009220dd7cc12a1744",
)
NUM_TOP = 5
"""The number of a clip's most probable classes among which the caption's is looked for."""
_FIRST = WINDOW + (NUM_FRAMES - 1) * HOP
_PATCH_HOP = NUM_FRAMES // 2


class YAMNet(Pretrained):
    """One row of 1024 numbers for each 0.48 s at 16 kHz, and the logits of 521 classes of AudioSet.

    A patch has 0.96 s, and starts 0.48 s after the one before; silence completes the last, as in TensorFlow's YAMNet.
    A clip's logits are those of its mean probabilities over all patches. The class agreement is the share of clips
    for which the caption names at least one of the five most probable classes; captions that name none are left out.

    Args:
        weights: the file yamnet.h5, as TensorFlow publishes it, or the folder that it is kept in; ``None`` is the
            folder ``bsa-lightning/weights`` in the user's cache folder. Where the file is not there, it is fetched. A
            file of another name, a Keras file or ONNX, is taken for weights of your own: only its names, shapes and
            values are checked, not whether the numbers are the published ones.
        reading: the conversion of sound to the embedding's input; ``None`` is :class:`Plain`.

    Raises:
        UserError: if the file cannot be had, is damaged or another one.
    """

    name = "yamnet"
    metric = "fd_yamnet"
    caption_metric = "class_agreement"
    sample_rate = 16_000
    num_features = 1024
    is_classifier = True
    judges_logits = True

    def __init__(self, weights: Path | None = None, reading: Reading | None = None) -> None:
        super().__init__(reading)
        self.weights = located(weights, PUBLISHED)
        self.log_mel = LogMelBands(0.001)
        with torch.device("meta"):
            self.network = YAMNetNetwork()
        self.fingerprint = f"yamnet-1-{fill(self.network, self.weights, PUBLISHED, read_weights)}"
        self.fingerprint += sha256_of_data(self.weights)
        self.eval()

    def num_rows(self, num_samples: int) -> int:
        return 1 + max(0, -(-(num_samples - _FIRST) // (_PATCH_HOP * HOP)))

    def patches(self, waveform: Tensor) -> Tensor:
        """Returns the network's input, (batch, patches, 96, 64), for waveforms (batch, samples) in [-1, 1]."""
        whole = _FIRST + (self.num_rows(waveform.shape[-1]) - 1) * _PATCH_HOP * HOP
        log_mel = self.log_mel(pad(waveform, (0, whole - waveform.shape[-1])))
        return log_mel.unfold(1, NUM_FRAMES, _PATCH_HOP).mT

    @torch.no_grad()
    def forward(self, waveform: Tensor) -> Features:
        patches = self.patches(waveform)
        rows, logits = (part.unflatten(0, patches.shape[:2]) for part in self.network(patches.flatten(0, 1)))
        # Equal to the logit of the mean probability, and finite where that rounds to 0 or 1.
        return Features(rows, logsigmoid(logits).logsumexp(1) - logsigmoid(-logits).logsumexp(1))

    def text(self, captions: Sequence[str]) -> Tensor:
        """Returns which classes captions name, (captions, 521), as zeros and ones."""
        found = torch.zeros(len(captions), self.network.classifier.out_features, dtype=torch.float64)
        for row, caption in zip(found, captions, strict=True):
            row[named_classes(caption)] = 1
        return found

    def judge(self, rows: Tensor, captions: Tensor) -> Tensor:
        """Returns whether one of the most probable classes of a clip is one that its caption names, as zeros and ones.

        Args:
            rows: the logits of clips, (n, 521).
            captions: the classes that the captions name, (n, 521).

        Raises:
            NoValueError: if no caption names a class.
        """
        names_one = captions.any(1)
        if not names_one.any():
            raise NoValueError(
                "no caption names a class of AudioSet, so no class can agree; score captions that name one"
            )
        best = rows[names_one].topk(NUM_TOP, dim=1).indices
        return captions[names_one].gather(1, best).amax(1)


class YAMNetNetwork(nn.Module):
    """MobileNet v1, from patches (n, 96, 64) to (n, 1024) and logits (n, 521), with its batch norms in the weights."""

    def __init__(self) -> None:
        super().__init__()
        first = nn.Conv2d(1, _WIDTHS[0], 3, stride=2)
        self.convolutions = nn.ModuleList([first])
        for i, (channels, width) in enumerate(pairwise(_WIDTHS)):
            stride = 2 if i in _HALVING else 1
            self.convolutions += [
                nn.Conv2d(channels, channels, 3, stride=stride, groups=channels),
                nn.Conv2d(channels, width, 1),
            ]
        self.classifier = nn.Linear(_WIDTHS[-1], 521)

    def forward(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        x = patches[:, None]
        for convolution in self.convolutions:
            if convolution.kernel_size == (3, 3):
                x = pad(x, (0, 1, 0, 1) if convolution.stride == (2, 2) else (1, 1, 1, 1))  # TensorFlow's "same"
            x = convolution(x).relu()
        rows = x.mean((2, 3))
        return rows, self.classifier(rows)


_WIDTHS = (32, 64, 128, 128, 256, 256, *6 * (512,), 1024, 1024)
_HALVING = (1, 3, 5, 11)
"""The separable convolutions that halve both axes."""
