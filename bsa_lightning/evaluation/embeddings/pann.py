"""PANNs' Cnn14 at 16 kHz (Kong et al. 2020), whose features and logits published FD, KL and IS are computed from."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, conv1d, pad, relu

from bsa_lightning.evaluation.embeddings.base import Features
from bsa_lightning.evaluation.embeddings.published_weights import Pretrained, Published, fill, located
from bsa_lightning.evaluation.embeddings.reading import Reading

PUBLISHED = Published(
    "Cnn14_16k_mAP=0.438.pth",
    "https://zenodo.org/records/3987831",
    "https://zenodo.org/records/3987831/files/Cnn14_16k_mAP%3D0.438.pth?download=1",
    "e2ee543a27919542c2ea03eabaa70b24dcd4e6c8e05621de6b67a94e4c5058e6",
    entry="model",
)


class PANN(Pretrained):
    """One row of 2048 numbers for each clip (after fc1 and its ReLU), and the logits of AudioSet's 527 classes.

    A clip shorter than 2 s is padded with silence at its end, since Cnn14's poolings need that length.

    Args:
        weights: the file Cnn14_16k_mAP=0.438.pth, as PANNs publish it, or the folder that it is kept in; ``None`` is
            the folder ``bsa-lightning/weights`` in the user's cache folder. Where the file is not there, it is fetched.
            A file of another name is taken for weights of your own: only its names, shapes and values are checked, not
            whether the numbers are the published ones.
        reading: the conversion of sound to the embedding's input; ``None`` is :class:`Plain`, published scores need
            another.

    Raises:
        UserError: if the file cannot be had, is damaged or another one.
    """

    name = "pann"
    metric = "fd_pann"
    sample_rate = 16_000
    num_features = 2048
    is_classifier = True

    def __init__(self, weights: Path | None = None, reading: Reading | None = None) -> None:
        super().__init__(reading)
        with torch.device("meta"):
            self.network = _Cnn14()
        self.weights = located(weights, PUBLISHED)
        self.fingerprint = f"pann-1-{fill(self.network, self.weights, PUBLISHED)}"
        self.eval()

    def num_rows(self, num_samples: int) -> int:  # noqa: ARG002
        return 1

    @torch.no_grad()
    def forward(self, waveform: Tensor) -> Features:
        waveform = pad(waveform, (0, max(0, 2 * self.sample_rate - waveform.shape[-1])))
        embedding, logits = self.network(waveform)
        return Features(embedding[:, None], logits)


class _Cnn14(nn.Module):
    """The network, from waveforms (n, samples) to (n, 2048) and (n, 527); its parts have the names of the file."""

    def __init__(self) -> None:
        super().__init__()
        fourier = {f"conv_{part}": nn.Conv1d(1, 257, _WINDOW, stride=160, bias=False) for part in ("real", "imag")}
        self.spectrogram_extractor = nn.ModuleDict({"stft": nn.ModuleDict(fourier)})
        self.logmel_extractor = nn.ParameterDict({"melW": nn.Parameter(torch.empty(257, 64))})
        self.bn0 = nn.BatchNorm1d(64)
        for i, (channels, width) in enumerate(pairwise((1, 64, 128, 256, 512, 1024, 2048)), start=1):
            self.add_module(f"conv_block{i}", _Block(channels, width))
        self.fc1 = nn.Linear(2048, 2048)
        self.fc_audioset = nn.Linear(2048, 527)

    def log_mel(self, waveform: Tensor) -> Tensor:
        """Returns the log-mel spectrogram (n, 64, frames), in dB of power; frames are 32 ms, centred every 10 ms."""
        # In float64, since cuDNN convolves float32 in TF32, whose errors in loud bands exceed the values of quiet ones.
        padded = pad(waveform[:, None].double(), (_WINDOW // 2, _WINDOW // 2), mode="reflect")
        fourier = [self.get_parameter(f"spectrogram_extractor.stft.conv_{part}.weight") for part in ("real", "imag")]
        power = torch.stack([conv1d(padded, part.double(), stride=160) for part in fourier]).square().sum(0)
        return 10 * (self.logmel_extractor["melW"].mT.double() @ power).clamp(min=1e-10).log10().float()

    def forward(self, waveform: Tensor) -> tuple[Tensor, Tensor]:
        x = self.bn0(self.log_mel(waveform)).mT[:, None]
        for i in range(1, 7):
            x = getattr(self, f"conv_block{i}")(x)
            x = avg_pool2d(x, 2) if i < 6 else x
        x = x.mean(3)
        embedding = relu(self.fc1(x.amax(2) + x.mean(2)))
        return embedding, self.fc_audioset(embedding)


class _Block(nn.Module):
    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return relu(self.bn2(self.conv2(relu(self.bn1(self.conv1(x))))))


_WINDOW = 512
