"""CLAP (Wu et al. 2023): sounds and captions in one space, for a Frechet distance and for CLAP scores."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import normalize

from bsa_lightning.common.errors import UserError
from bsa_lightning.common.files import sha256_of_file
from bsa_lightning.common.settings_alone import refuse_to_load
from bsa_lightning.evaluation.embeddings.base import Features
from bsa_lightning.evaluation.embeddings.published_weights import Pretrained
from bsa_lightning.evaluation.embeddings.reading import Reading
from bsa_lightning.evaluation.metrics.divergence import clap_score
from bsa_lightning.models.audioldm import longest_caption
from bsa_lightning.models.hub import fetch
from bsa_lightning.models.model_folder import read_network, readable
from bsa_lightning.models.tokens import CaptionTokens


class CLAP(Pretrained):
    """One row of 512 numbers, of L2 norm 1, for each clip (at 48 kHz) and for each caption.

    A clip longer than those that CLAP was trained on (10 s) is cut to its beginning, where the original crops it at
    random; a shorter clip is repeated as often as it fits, then padded with silence.

    Args:
        checkpoint: a folder in transformers' layout, or the id of a checkpoint on the Hugging Face hub.
        reading: the conversion of sound to the embedding's input; ``None`` is :class:`Plain`.

    Raises:
        UserError: if the checkpoint cannot be fetched or read, or its tokenizer does not fit its text encoder.
    """

    name = "clap"
    metric = "fd_clap"
    caption_metric = "clap_score"

    def __init__(self, checkpoint: str = "laion/clap-htsat-unfused", reading: Reading | None = None) -> None:
        from transformers import AutoTokenizer, ClapFeatureExtractor, ClapModel

        super().__init__(reading)
        self.checkpoint = checkpoint
        folder = _folder(checkpoint)
        refuse_to_load(folder)
        try:
            self.model = read_network(ClapModel, folder)
            with readable(folder, "a CLAP"):
                self.extractor = ClapFeatureExtractor.from_pretrained(folder, local_files_only=True)
                self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        except UserError as error:
            raise UserError(
                f'checkpoint is "{checkpoint}", but {error}: it is not a complete CLAP in transformers\' layout;'
                f" name a folder with {', '.join(_NEEDED)}"
            ) from error
        known = self.model.config.text_config.vocab_size
        # If its files are missing, transformers makes a tokenizer of five special tokens, under which all captions are
        # alike.
        if len(self.tokenizer) != known:
            raise UserError(
                f"the tokenizer in {folder} has {len(self.tokenizer)} tokens where its text encoder has {known};"
                f" put the tokenizer.json of the same checkpoint there"
            )
        longest = longest_caption(self.model.config.text_config)
        self.tokens = CaptionTokens(self.tokenizer, name="the CLAP that scores", longest=longest)
        self.sample_rate = self.extractor.sampling_rate
        self.num_features = self.model.config.projection_dim
        self.fingerprint = f"clap-1-{_sha256(folder)}"
        self.requires_grad_(False).eval()

    def num_rows(self, num_samples: int) -> int:  # noqa: ARG002
        return 1

    @torch.no_grad()
    def forward(self, waveform: Tensor) -> Features:
        waveform = waveform[:, : self.extractor.nb_max_samples]
        mel = self.extractor(waveform.double().cpu().numpy(), sampling_rate=self.sample_rate, return_tensors="np")
        pixels = torch.from_numpy(mel["input_features"]).to(self.model.device, torch.float32)
        # The extractor marks a random clip as longer if none is, for models that fuse crops.
        longer = torch.zeros(len(pixels), 1, dtype=torch.bool, device=pixels.device)
        pooled = self.model.audio_model(pixels, is_longer=longer).pooler_output
        return Features(normalize(self.model.audio_projection(pooled), dim=-1)[:, None])

    @torch.no_grad()
    def text(self, captions: Sequence[str]) -> Tensor:
        """Returns the rows of captions, (captions, num_features), of L2 norm 1."""
        ids, mask = self.tokens(captions, device=self.model.device)
        pooled = self.model.text_model(ids, attention_mask=mask).pooler_output
        return normalize(self.model.text_projection(pooled), dim=-1)

    def judge(self, rows: Tensor, captions: Tensor) -> Tensor:
        """Returns the CLAP score of each row, (n,)."""
        return clap_score(rows, captions)


def _folder(checkpoint: str) -> Path:
    folder = Path(checkpoint).expanduser()
    if folder.is_dir():
        return folder
    if checkpoint.count("/") != 1 or checkpoint[0] in "./~":
        raise UserError(
            f'checkpoint is "{checkpoint}", but no such folder exists; name a folder in transformers\' layout,'
            f' or one on the hub such as "laion/clap-htsat-unfused"'
        )
    return fetch(checkpoint, _NEEDED, optional=_OPTIONAL, option="checkpoint")


def _sha256(folder: Path) -> str:
    """Returns the SHA-256 of the files of a checkpoint that are read."""
    digest = hashlib.sha256()
    for name in (*_NEEDED, *_OPTIONAL):
        if (folder / name).is_file():
            digest.update(f"{name} {sha256_of_file(folder / name)}\n".encode())
    return digest.hexdigest()


_NEEDED = ("config.json", "model.safetensors", "preprocessor_config.json", "tokenizer.json")
_OPTIONAL = ("tokenizer_config.json", "special_tokens_map.json", "vocab.json", "merges.txt")
