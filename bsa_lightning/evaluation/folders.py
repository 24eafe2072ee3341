"""Two folders of audio files, scored as a run scores its systems; pairs are files of one name."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from bsa_lightning.data import audio
from bsa_lightning.errors import UserError
from bsa_lightning.evaluation.card import score_card
from bsa_lightning.evaluation.embeddings import Embedding, LogMelStatistics
from bsa_lightning.evaluation.measures import Measures, ReadsCaptions
from bsa_lightning.evaluation.reference import Reader, RowCache
from bsa_lightning.evaluation.row_store import ClipRows, RowStore
from bsa_lightning.files import read_json, sha256_of_file

MOSTLY = 0.99
"""Share of names in both folders from which they are pairs; fewer are taken for two unrelated sets."""


def score_folders(
    reference: Path,
    generated: Path,
    *,
    embeddings: Sequence[Embedding] = (),
    captions: Path | None = None,
    at_infinity: bool = False,
    reader: Reader | None = None,
    cache: Path | None = None,
    device: torch.device | str = "cpu",
) -> dict[str, Any]:
    """The card of the scores: ``scores``, and all that decides them.

    Args:
        reference: folder of real sound.
        generated: folder of a system's sound.
        embeddings: none is log-mel statistics.
        captions: JSON of file names, without suffix, to captions.
        at_infinity: also extrapolate Frechet distances to infinitely many clips.
        reader: of the files; none reads first channels as they are.
        cache: folder that keeps the rows of the reference; none embeds it anew.
        device: where embeddings run.

    Raises:
        UserError: if a folder holds no audio, or too little of it.
    """
    reader = reader or Reader()
    files = {side: _files(folder) for side, folder in (("reference", reference), ("generated", generated))}
    names = sorted(files["reference"].keys() | files["generated"].keys())
    common = files["reference"].keys() & files["generated"].keys()
    paired = len(common) >= MOSTLY * max(map(len, files.values()))
    if paired:
        # A few that one side lacks would leave clips without a pair.
        files = {side: {name: found[name] for name in sorted(common)} for side, found in files.items()}
    texts = {} if captions is None else _captions(captions, files["generated"])
    embeddings = list(embeddings) or [LogMelStatistics()]
    scores: dict[str, float] = {}
    for embedding in embeddings:
        embedding.to(device)
        rows = {
            side: _rows(found, names, embedding, reader, RowCache(cache if side == "reference" else None), device)
            for side, found in files.items()
        }
        measures = Measures(
            embedding,
            rows["reference"],
            captions=_caption_rows(texts, names, embedding) if texts else None,
            at_infinity=at_infinity,
        )
        scores |= measures(rows["generated"], paired=paired)
    return score_card(
        embeddings,
        scores=scores,
        num_reference=len(files["reference"]),
        num_generated=len(files["generated"]),
        num_pairs=len(common),
        paired=paired,
        sha256={side: _sha256(found) for side, found in files.items()},
        reader=asdict(reader),
    )


@torch.no_grad()
def _rows(
    files: Mapping[str, Path],
    names: Sequence[str],
    embedding: Embedding,
    reader: Reader,
    cache: RowCache,
    device: torch.device | str,
) -> ClipRows:
    """A clip's number is its place in ``names``. One at a time, since their lengths differ."""
    store = RowStore(embedding.num_features).to(device)
    number = {name: i for i, name in enumerate(names)}
    for name, path in tqdm(files.items(), desc=embedding.name, unit="file", disable=None):
        wave = reader.read(path, sample_rate=embedding.sample_rate).to(device)
        store.update(cache.embed(embedding, wave[None], sample_rate=embedding.sample_rate), [number[name]])
    found: ClipRows = store.compute()
    return found


def _files(folder: Path) -> dict[str, Path]:
    """Audio files by name without suffix."""
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder} does not exist; name a folder of audio files")
    found = {path.stem: path for path in sorted(folder.iterdir()) if path.suffix.lower() in audio.SUFFIXES}
    if not found:
        raise UserError(f"{folder} holds no audio; name a folder of {', '.join(audio.SUFFIXES)} files")
    return found


def _captions(path: Path, files: Mapping[str, Path]) -> dict[str, str]:
    captions = read_json(Path(path))
    if missing := [name for name in files if not isinstance(captions.get(name), str)]:
        raise UserError(f'{path} has no caption of {missing[0]}; it must be JSON such as {{"{missing[0]}": "Rain"}}')
    return {name: captions[name] for name in files}


def _caption_rows(captions: Mapping[str, str], names: Sequence[str], embedding: Embedding) -> Tensor | None:
    """Rows by clip number, of the clips that have captions."""
    if not isinstance(embedding, ReadsCaptions):
        return None
    with torch.no_grad():
        made = embedding.text(list(captions.values())).double().cpu()
    rows = torch.zeros(len(names), made.shape[1], dtype=torch.float64)
    rows[[i for i, name in enumerate(names) if name in captions]] = made
    return rows


def _sha256(files: Mapping[str, Path]) -> str:
    """Of names and bytes."""
    digest = hashlib.sha256()
    for name, path in files.items():
        digest.update(f"{name} {sha256_of_file(path)}\n".encode())
    return digest.hexdigest()
