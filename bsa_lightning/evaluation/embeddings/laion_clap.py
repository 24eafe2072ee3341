"""CLAP as LAION publishes it, the network and the checkpoints of frechet-audio-distance."""

from __future__ import annotations

import warnings
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, pad

from bsa_lightning.common.errors import UserError
from bsa_lightning.evaluation.embeddings.base import Features
from bsa_lightning.evaluation.embeddings.package_code import WithoutDraws, import_alone
from bsa_lightning.evaluation.embeddings.published_weights import (
    OtherWeightsError,
    Pretrained,
    Published,
    fill,
    read_torch,
)
from bsa_lightning.evaluation.embeddings.reading import Reading
from bsa_lightning.models.hub import fetch

_HUB = "lukewys/laion_clap"
_FILES = {
    "630k-audioset": "630k-audioset-best.pt",
    "630k": "630k-best.pt",
    "music_audioset": "music_audioset_epoch_15_esc_90.14.pt",
    "music_speech": "music_speech_epoch_15_esc_89.25.pt",
    "music_speech_audioset": "music_speech_audioset_epoch_15_esc_89.98.pt",
}
_LONGEST = 480_000
"""The number of samples of the network's input: 10 s at 48 kHz."""
Submodel = Literal["630k-audioset", "630k", "music_audioset", "music_speech", "music_speech_audioset"]


class LaionCLAP(Pretrained):
    """One row of 512 numbers, of L2 norm 1, for each clip at 48 kHz, from LAION's own checkpoints and network.

    It is the CLAP of frechet-audio-distance, without fusion and without the text encoder, which no distance needs. A
    clip longer than 10 s is cut to its beginning, where the package crops it at random; a shorter clip is repeated as
    often as it fits, then padded with silence.

    Args:
        submodel: the checkpoint, by the package's name for it.
        weights: the file of the checkpoint, or the folder that it is in; ``None`` is that of the Hugging Face hub,
            which its client fetches and keeps. Files are read without executing code.
        reading: the conversion of sound to the embedding's input; ``None`` is :class:`Plain`.

    Raises:
        UserError: if the file cannot be had, is damaged or another one.
    """

    name = "laion_clap"
    metric = "fd_laion_clap"
    sample_rate = 48_000
    num_features = 512

    def __init__(
        self, submodel: Submodel = "630k-audioset", weights: Path | None = None, reading: Reading | None = None
    ) -> None:
        super().__init__(reading)
        if submodel not in _FILES:
            raise UserError(f'submodel is "{submodel}", but must be one of {", ".join(_FILES)}')
        file, self.submodel, self.weights = _FILES[submodel], submodel, weights
        published = Published(
            file, f"https://huggingface.co/{_HUB}", "", "", entry="state_dict", is_checked=weights is None
        )
        path = fetch(_HUB, [file], option="weights") if weights is None else Path(weights).expanduser()
        if path.is_dir():
            path /= file
        self.network = _audio_encoder("base" if submodel.startswith("music") else "tiny")
        sha256 = fill(self.network, path, published, partial(_audio_weights, wanted=self.network))
        self.fingerprint = f"laion_clap-1-{sha256}"
        self.eval()

    def num_rows(self, num_samples: int) -> int:  # noqa: ARG002
        return 1

    @torch.no_grad()
    def forward(self, waveform: Tensor) -> Features:
        waveform = waveform[:, :_LONGEST]
        waveform = waveform.repeat(1, _LONGEST // waveform.shape[1])
        waveform = pad(waveform, (0, _LONGEST - waveform.shape[1]))
        rows = self.network["audio_branch"]({"waveform": waveform.float()}, device=waveform.device)["embedding"]
        return Features(normalize(self.network["audio_projection"](rows), dim=-1)[:, None])


def _audio_encoder(size: str) -> nn.ModuleDict:
    """Returns the package's network of sound and the projection to 512 numbers, by the names of the file."""
    settings = SimpleNamespace(
        audio_length=1024, clip_samples=_LONGEST, mel_bins=64, sample_rate=48_000, window_size=1024, hop_size=480,
        fmin=50, fmax=14_000, class_num=527, model_name=size,
    )  # fmt: skip
    with warnings.catch_warnings(), WithoutDraws():
        warnings.simplefilter("ignore")  # of torch.meshgrid's next version
        branch = import_alone("laion_clap", "clap_module", "htsat").create_htsat_model(settings)
        projection = nn.Sequential(nn.Linear(branch.num_features, 512), nn.ReLU(), nn.Linear(512, 512))
    return nn.ModuleDict({"audio_branch": branch, "audio_projection": projection})


def _audio_weights(path: Path, wanted: nn.Module) -> dict[str, dict[str, Tensor]]:
    """Returns the weights of the audio side alone, under the key of whole checkpoints.

    Raises:
        OtherWeightsError: if the file holds no state dict.
    """
    content = read_torch(path)
    weights = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(weights, dict):
        raise OtherWeightsError("it has no state dict")
    parts = tuple(f"{name}." for name, _ in wanted.named_children())
    named = {str(name).removeprefix("module."): tensor for name, tensor in weights.items()}
    return {"state_dict": {name: tensor for name, tensor in named.items() if name.startswith(parts)}}
