"""Scores of two folders of audio files, by the measures of a run; files of the same name are pairs."""

from __future__ import annotations

import hashlib
import logging
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bsa_lightning.common.errors import UserError
from bsa_lightning.common.files import sha256_of_file
from bsa_lightning.common.lists import plain_text, read_object
from bsa_lightning.common.progress import progress
from bsa_lightning.data.audio import length_of, recorded, suffixes
from bsa_lightning.evaluation.embeddings.base import Embedding, ReadsCaptions, refuse_repeated
from bsa_lightning.evaluation.embeddings.log_mel import LogMelStatistics
from bsa_lightning.evaluation.measures import (
    Measures,
    expected_rows,
    needs_many,
    of_distributions,
    too_few_reason,
)
from bsa_lightning.evaluation.reference import RowCache
from bsa_lightning.evaluation.row_store import ClipRows, RowStore
from bsa_lightning.evaluation.score_card import score_card

_log = logging.getLogger(__name__)

MOSTLY = 0.99
"""The share of names that must be in both folders for files to be compared in pairs."""


def score_folders(
    reference: Path,
    generated: Path,
    *,
    embeddings: Sequence[Embedding] = (),
    captions: Path | None = None,
    at_infinity: bool = False,
    kadtk: bool = False,
    cache: Path | None = None,
    device: torch.device | str = "cpu",
) -> dict[str, Any]:
    """Returns the card of the scores: ``scores``, and everything that decides them.

    Distances compare all files of both folders. Divergences compare pairs, which are files of the same name without
    suffix, if at least 99 % of the names are in both folders. Measures without a value are left out of ``scores``, and
    listed with the reason in ``without_value``.

    Args:
        reference: the folder of real sound. Hidden files, files that are not audio, and files in subfolders are
            ignored, and counted on the card.
        generated: the folder of a system's sound, read in the same way.
        embeddings: the embeddings to score with; an empty sequence stands for log-mel statistics.
        captions: a JSON file with an object from file names, without suffix, to captions; ``None`` leaves out scores
            that compare sound with captions.
        at_infinity: whether to extrapolate Frechet distances to infinitely many generated clips as well, with the same
            reference. Left out if there are fewer than four clips, or eight rows, for each dimension of an embedding.
        kadtk: whether to compute kernel distances as the package kadtk does, too.
        cache: the folder that keeps the rows of the reference; ``None`` keeps nothing.
        device: the device that embeddings run on.

    Raises:
        UserError: if a folder holds no audio, too little of it, or two files of the same name.
    """
    skipped: dict[str, int] = {}
    files: dict[str, dict[str, Path]] = {}
    for side, folder in (("reference", reference), ("generated", generated)):
        files[side], skipped[side] = _files(folder)
    names = sorted(files["reference"].keys() | files["generated"].keys())
    common = files["reference"].keys() & files["generated"].keys()
    paired = len(common) >= MOSTLY * max(map(len, files.values()))
    without_pair = {side: sorted(found.keys() - common) for side, found in files.items()}
    for side, without in without_pair.items():
        if without and common:
            _log.warning(
                "%d %s files have no pair, and count in distances alone: %s", len(without), side, _some(without)
            )
    texts = {} if captions is None else _captions(captions, files["generated"])
    embeddings = list(embeddings) or [LogMelStatistics()]
    refuse_repeated(embeddings)
    if Path(reference).resolve() == Path(generated).resolve():
        _log.warning("%s is compared with itself: distances are 0, and say nothing", reference)
    scores: dict[str, float] = {}
    able, few = _able(embeddings, files, paired=paired, captions=bool(texts))
    without_value: dict[str, str] = {}
    for embedding in embeddings:
        if embedding in few:
            columns = of_distributions(embedding, at_infinity=at_infinity, kadtk=kadtk) or [embedding.name]
            without_value |= dict.fromkeys(columns, few[embedding])
        if embedding.is_classifier and not paired:
            why = f"{len(common)} of {len(names)} names are in both folders, where divergences need {MOSTLY:.0%}"
            without_value |= {f"kl_{embedding.name}": why, f"kl_sigmoid_{embedding.name}": why}
            _log.warning("kl_%s is left out: %s", embedding.name, why)
    for embedding in able:
        embedding.to(device)
        rows = {
            side: _rows(found, names, embedding, RowCache(cache if side == "reference" else None), device)
            for side, found in files.items()
        }
        measures = Measures(
            embedding,
            rows["reference"],
            captions=_caption_rows(texts, names, embedding) if texts else None,
            at_infinity=at_infinity,
            kadtk=kadtk,
        )
        scores |= measures(rows["generated"], paired=paired)
        without_value |= measures.left_out
    if not scores:
        raise UserError(f"nothing could be measured: {next(iter(without_value.values()))}")
    return score_card(
        embeddings,
        scores=scores,
        without_value=without_value,
        num_reference=len(files["reference"]),
        num_generated=len(files["generated"]),
        num_pairs=len(common),
        paired=paired,
        num_captions=len(texts),
        captions=None if captions is None else sha256_of_file(Path(captions)),
        num_without_pair={side: len(without) for side, without in without_pair.items()},
        num_skipped=skipped,
        sha256={side: _sha256(found) for side, found in files.items()},
    )


def _able(
    embeddings: Sequence[Embedding], files: Mapping[str, Mapping[str, Path]], *, paired: bool, captions: bool
) -> tuple[list[Embedding], dict[Embedding, str]]:
    """Returns the embeddings that have a measure for this sound, and the reason why each of the others has none.

    It is decided before any file is embedded, from the lengths in the files' headers.

    Raises:
        UserError: if no embedding has a measure.
    """
    lengths = {side: [length_of(path) for path in found.values()] for side, found in files.items()}
    too_little: dict[Embedding, str] = {}
    for embedding in embeddings:
        few = ""
        if isinstance(embedding, ReadsCaptions) and embedding.metric is None and not captions:
            too_little[embedding] = f"{embedding.caption_metric} compares sound with captions; name a file of captions"
            _log.warning("%s is left out: %s", embedding.name, too_little[embedding])
            continue
        for side, found in lengths.items():
            few = few or too_few_reason(num_clips=len(found), num_rows=expected_rows(embedding, found), side=side)
        if few and needs_many(embedding, paired=paired, captions=captions):
            too_little[embedding] = few
            _log.warning("%s is left out: %s", embedding.metric, few)
    able = [embedding for embedding in embeddings if embedding not in too_little]
    if not able:
        raise UserError(f"nothing can be measured: {next(iter(too_little.values()))}")
    return able, too_little


@torch.no_grad()
def _rows(
    files: Mapping[str, Path],
    names: Sequence[str],
    embedding: Embedding,
    cache: RowCache,
    device: torch.device | str,
) -> ClipRows:
    """Returns the rows of files, which are embedded one by one since their lengths differ.

    Args:
        files: the path of each file, by name.
        names: all names of both folders; the number of a clip is the index of its name.
        embedding: the embedding.
        cache: keeps the rows.
        device: the device that the embedding runs on.
    """
    store = RowStore(embedding.num_features).to(device)
    number = {name: i for i, name in enumerate(names)}
    for name, path in progress(files.items(), desc=embedding.name, unit="file", disable=None):
        wave, rate = recorded(path)
        store.update(cache.embed(embedding, wave[None].to(device), sample_rate=rate), [number[name]])
    found: ClipRows = store.compute()
    return found


def _files(folder: Path) -> tuple[dict[str, Path], int]:
    """Returns the audio files of a folder by name, without suffix and in Unicode's composed form, and counts the rest.

    Raises:
        UserError: if there is no such folder, it holds no audio, or two of its files have the same name.
    """
    folder = Path(folder)
    if not folder.is_dir():
        why = "is not a folder" if folder.exists() else "does not exist"
        raise UserError(f"{folder} {why}; name a folder of audio files")
    found: dict[str, Path] = {}
    skipped = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.suffix.lower() not in suffixes():
            skipped.append(path.name)
            continue
        name = _name(path)
        if name in found:
            raise UserError(
                f"{folder} holds {found[name].name} and {path.name}, which have the same name without their"
                " suffixes; remove one of them"
            )
        found[name] = path
    if not found:
        raise UserError(f"{folder} holds no audio; name a folder of {', '.join(sorted(suffixes()))} files")
    if skipped:
        _log.warning(
            "%s: %d entries are hidden or not audio files, and are ignored: %s",
            folder, len(skipped), _some(skipped),
        )  # fmt: skip
    return found, len(skipped)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _name(path: Path) -> str:
    if not path.is_file():
        raise UserError(f"{path} is not a regular file; remove it")
    try:
        path.name.encode()
    except UnicodeEncodeError:
        raise UserError(f"{path.parent} holds a file whose name is not UTF-8 ({path.name!r}); rename it") from None
    return unicodedata.normalize("NFC", path.stem)


def _captions(path: Path, files: Mapping[str, Path]) -> dict[str, str]:
    content = read_object(Path(path))
    captions = {unicodedata.normalize("NFC", name): caption for name, caption in content.items()}
    if len(captions) != len(content):
        raise UserError(f"{path} names a clip twice, in two forms of Unicode; remove one of them")
    if missing := [name for name in files if not isinstance(captions.get(name), str)]:
        raise UserError(
            f'{path} has no caption for {missing[0]} that is text; it must be JSON such as {{"{missing[0]}": "Rain"}}'
        )
    if other := [name for name in captions if name not in files]:
        _log.warning("%s: %d captions have no generated file: %s", path, len(other), _some(other))
    return {name: plain_text(captions[name], where=str(path), what="caption") for name in files}


def _caption_rows(captions: Mapping[str, str], names: Sequence[str], embedding: Embedding) -> Tensor | None:
    """Returns the embedding of the captions, (names, ...), with zeros for clips without; ``None`` if it reads none."""
    if not isinstance(embedding, ReadsCaptions):
        return None
    known = [i for i, name in enumerate(names) if name in captions]
    with torch.no_grad():
        made = embedding.text([captions[names[i]] for i in known]).double().cpu()
    rows = torch.zeros(len(names), made.shape[1], dtype=torch.float64)
    rows[known] = made
    return rows


def _sha256(files: Mapping[str, Path]) -> str:
    """Returns the SHA-256 of the names and contents of files."""
    digest = hashlib.sha256()
    for name, path in files.items():
        digest.update(f"{name} {sha256_of_file(path)}\n".encode())
    return digest.hexdigest()
