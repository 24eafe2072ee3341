"""Two folders of audio files, scored as a run scores its systems; pairs are files of one name."""

from __future__ import annotations

import hashlib
import logging
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from bsa_lightning.data.audio import suffixes
from bsa_lightning.errors import UserError
from bsa_lightning.evaluation import infinite
from bsa_lightning.evaluation.card import score_card
from bsa_lightning.evaluation.embeddings import Embedding, LogMelStatistics
from bsa_lightning.evaluation.measures import MIN_CLIPS, Measures, ReadsCaptions, refuse_repeated
from bsa_lightning.evaluation.reference import Reader, RowCache
from bsa_lightning.evaluation.row_store import ClipRows, RowStore
from bsa_lightning.files import sha256_of_file
from bsa_lightning.lists import plain_text, read_object

_log = logging.getLogger(__name__)

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
        reference: folder of real sound. Files in folders below it, hidden ones and those of other formats than sound
            are passed over, and counted on the card.
        generated: folder of a system's sound, likewise.
        embeddings: an empty sequence stands for log-mel statistics.
        captions: a JSON object of file names, without suffix, to captions.
        at_infinity: also extrapolate Frechet distances to infinitely many clips.
        reader: of the files; ``None`` reads first channels as they are.
        cache: folder that keeps the rows of the reference; ``None`` embeds it anew.
        device: where embeddings run.

    Raises:
        UserError: if a folder holds no audio, too little of it, or two files of one name.
    """
    reader = reader or Reader()
    skipped: dict[str, int] = {}
    files: dict[str, dict[str, Path]] = {}
    for side, folder in (("reference", reference), ("generated", generated)):
        files[side], skipped[side] = _files(folder)
    listed = {side: set(found) for side, found in files.items()}
    names = sorted(files["reference"].keys() | files["generated"].keys())
    common = files["reference"].keys() & files["generated"].keys()
    paired = len(common) >= MOSTLY * max(map(len, files.values()))
    if paired:
        # A few that one side lacks would leave clips without a pair.
        files = {side: {name: found[name] for name in sorted(common)} for side, found in files.items()}
    left_out = {side: sorted(listed[side] - files[side].keys()) for side in files}
    for side, without in left_out.items():
        if without:
            _log.warning("%d %s files have no pair and were left out: %s", len(without), side, ", ".join(without))
    texts = {} if captions is None else _captions(captions, files["generated"])
    embeddings = list(embeddings) or [LogMelStatistics()]
    refuse_repeated(embeddings)
    if Path(reference).resolve() == Path(generated).resolve():
        _log.warning("%s is compared with itself: distances are 0, and say nothing", reference)
    _refuse_few(embeddings, files)
    if at_infinity:
        infinite.at_infinity(lambda _: 0.0, num_clips=len(files["generated"]))  # refuses too few
    scores: dict[str, float] = {}
    without_value: dict[str, str] = {}
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
        num_left_out={side: len(without) for side, without in left_out.items()},
        num_skipped=skipped,
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


def _files(folder: Path) -> tuple[dict[str, Path], int]:
    """Audio files by name without suffix, in Unicode's composed form; and how many entries of the folder are none."""
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
                f"{folder} holds {found[name].name} and {path.name}, which have one name without their suffixes; take"
                " one of them away"
            )
        found[name] = path
    if not found:
        raise UserError(f"{folder} holds no audio; name a folder of {', '.join(sorted(suffixes()))} files")
    if skipped:
        some = ", ".join(skipped[:3]) + (", ..." if len(skipped) > 3 else "")
        _log.warning(
            "%s: %d entries are hidden or no audio files, and were passed over: %s", folder, len(skipped), some
        )
    return found, len(skipped)


def _name(path: Path) -> str:
    if not path.is_file():
        raise UserError(f"{path} is no regular file; take it away")
    try:
        path.name.encode()
    except UnicodeEncodeError:
        raise UserError(f"{path.parent} holds a file whose name is no UTF-8 ({path.name!r}); rename it") from None
    return unicodedata.normalize("NFC", path.stem)


def _refuse_few(embeddings: Sequence[Embedding], files: Mapping[str, Mapping[str, Path]]) -> None:
    """Refuses sides of too few clips before they are embedded; too few rows show only then."""
    for embedding in embeddings:
        for side, found in files.items():
            if embedding.metric and len(found) < MIN_CLIPS and not isinstance(embedding, LogMelStatistics):
                raise UserError(
                    f"{embedding.metric} is of {len(found)} {side} clips, which say nothing about a distribution; score"
                    f" at least {MIN_CLIPS}"
                )


def _captions(path: Path, files: Mapping[str, Path]) -> dict[str, str]:
    content = read_object(Path(path))
    captions = {unicodedata.normalize("NFC", name): caption for name, caption in content.items()}
    if len(captions) != len(content):
        raise UserError(f"{path} names a clip twice, in two forms of Unicode; take one away")
    if missing := [name for name in files if not isinstance(captions.get(name), str)]:
        raise UserError(f'{path} has no caption of {missing[0]}; it must be JSON such as {{"{missing[0]}": "Rain"}}')
    return {name: plain_text(captions[name], where=str(path), what="caption") for name in files}


def _caption_rows(captions: Mapping[str, str], names: Sequence[str], embedding: Embedding) -> Tensor | None:
    """What the embedding judges sound by, by clip number, of the clips that have captions."""
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
