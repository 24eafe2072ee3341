"""Manifests: lists of audio files with captions, in AudioCaps' CSV and in Tango's JSON lines."""

from __future__ import annotations

import csv
import io
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from bsa_lightning.data import audio
from bsa_lightning.data.clips import Clips
from bsa_lightning.errors import UserError

_log = logging.getLogger(__name__)


class _Manifest(Clips):
    """Audio files with captions. What is missing on disk is left out, counted and listed."""

    def __init__(self, manifest: Path, wanted: Mapping[str, tuple[Path | None, list[str]]], max_missing: float) -> None:
        missing = [name for name, (path, _) in wanted.items() if path is None]
        if len(missing) > max_missing * len(wanted):
            raise UserError(
                f"{manifest} lists {len(wanted)} clips of which {len(missing)} are missing on disk ({_some(missing)}),"
                f" more than max_missing={max_missing:g} allows; fetch them, correct audio_dir or raise max_missing"
            )
        if missing:
            _log.warning("%s: %d of %d clips are missing on disk: %s", manifest, len(missing), len(wanted), missing)
        self.missing = missing
        self._items = [(name, path, captions) for name, (path, captions) in wanted.items() if path is not None]

    def __len__(self) -> int:
        return len(self._items)

    def id(self, i: int) -> str:
        return self._items[i][0]

    def captions(self, i: int) -> list[str]:
        return self._items[i][2]

    def waveform(self, i: int, *, sample_rate: int, num_samples: int, num_channels: int = 1) -> Tensor:
        waveform = audio.read(self._items[i][1], sample_rate=sample_rate, num_channels=num_channels)
        return audio.fit_length(audio.normalise(waveform), num_samples=num_samples)


class AudioCapsManifest(_Manifest):
    """AudioCaps' own CSV: ``audiocap_id,youtube_id,start_time,caption``, one line a caption.

    Args:
        csv: the list.
        audio_dir: where ``<youtube_id>_<start_time>.*``, ``Y<youtube_id>.*`` or ``<audiocap_id>.*`` lie.
        max_missing: share of clips that may be missing on disk.
    """

    COLUMNS = ("audiocap_id", "youtube_id", "start_time", "caption")

    def __init__(self, csv: Path, audio_dir: Path, max_missing: float = 0.05) -> None:
        files = _audio_files(audio_dir)
        wanted: dict[str, tuple[Path | None, list[str]]] = {}
        for row in _read_csv(Path(csv), self.COLUMNS):
            name = f"{row['youtube_id']}_{row['start_time']}"
            if name not in wanted:
                stems = (name, f"Y{row['youtube_id']}", row["audiocap_id"])
                wanted[name] = (next((files[stem] for stem in stems if stem in files), None), [])
            wanted[name][1].append(_caption(row["caption"], csv))
        super().__init__(csv, wanted, max_missing)


class TangoManifest(_Manifest):
    """Tango's JSON lines: ``location`` (the authors' path; its file name is kept) and ``captions``.

    Args:
        jsonl: the list.
        audio_dir: where the files lie here.
        max_missing: share of clips that may be missing on disk.
    """

    def __init__(self, jsonl: Path, audio_dir: Path, max_missing: float = 0.05) -> None:
        files = _audio_files(audio_dir)
        wanted: dict[str, tuple[Path | None, list[str]]] = {}
        for number, line in enumerate(_read_lines(Path(jsonl)), start=1):
            row = _parse_line(line, jsonl, number, "location")
            stem = Path(row["location"]).stem
            wanted.setdefault(stem, (files.get(stem), []))[1].extend(_captions(row["captions"], jsonl))
        super().__init__(jsonl, wanted, max_missing)


def read_captions(path: Path) -> list[str]:
    """Captions to generate from: a text file with one a line, a CSV with a column ``caption``, or JSON lines."""
    match path.suffix:
        case ".csv":
            captions = [_caption(row["caption"], path) for row in _read_csv(path, ("caption",))]
        case ".jsonl" | ".json":
            rows = [_parse_line(line, path, number) for number, line in enumerate(_read_lines(path), start=1)]
            captions = [_captions(row["captions"], path)[0] for row in rows]
        case _:
            captions = [line.strip() for line in _read_lines(path)]
    if not captions:
        raise UserError(f"{path} holds no captions; write one a line")
    return captions


def _read_csv(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    reader = csv.DictReader(io.StringIO(_read_text(path), newline=""))
    missing = [column for column in columns if column not in (reader.fieldnames or [])]
    if missing:
        raise UserError(f"{path} has no column {', '.join(missing)}; its first line must name {', '.join(columns)}")
    rows = list(reader)
    if not rows:
        raise UserError(f"{path} lists no clips; add at least one line below the header")
    return rows


def _read_lines(path: Path) -> list[str]:
    lines = [line for line in _read_text(path).splitlines() if line.strip()]
    if not lines:
        raise UserError(f"{path} is empty; write one entry a line")
    return lines


def _read_text(path: Path) -> str:
    if not path.is_file():
        raise UserError(f"{path} does not exist; name an existing list")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not text in UTF-8 ({error.reason}); save it as UTF-8") from error


def _parse_line(line: str, path: Path, number: int, *texts: str) -> dict[str, Any]:
    """A JSON object with captions (a text or several), and with ``texts``, fields that hold a text each."""
    try:
        row = json.loads(line)
    except ValueError:
        row = None
    if not isinstance(row, dict) or "captions" not in row or any(not isinstance(row.get(name), str) for name in texts):
        needed = " and ".join(["captions", *texts])
        raise UserError(f"{path} line {number} is not a JSON object with {needed}; correct the line")
    return row


def _captions(captions: object, path: Path) -> list[str]:
    """One caption or several, as Tango's lines have them."""
    return [
        _caption(caption, path) for caption in (captions if isinstance(captions, list) and captions else [captions])
    ]


def _audio_files(folder: Path) -> dict[str, Path]:
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f'audio_dir is "{folder}", but no such folder exists; name the folder of the audio files')
    return {path.stem: path for path in sorted(folder.iterdir()) if path.suffix.lower() in audio.SUFFIXES}


def _caption(text: object, path: Path) -> str:
    if not isinstance(text, str) or not text.strip():
        raise UserError(f"{path} has a clip without a caption; every clip needs one")
    return text.strip()


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
