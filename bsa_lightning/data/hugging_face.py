"""Data sets of the ``datasets`` library: from the Hugging Face hub, Parquet files or saved folders."""

from __future__ import annotations

import glob
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from bsa_lightning.common.errors import UserError
from bsa_lightning.common.settings_alone import refuse_to_load
from bsa_lightning.data.audio import Channels
from bsa_lightning.data.recordings import BrokenSourceError, Columns, Recordings, refuse_repeated, state_of
from bsa_lightning.data.sound_source import SoundBytes, Source
from bsa_lightning.data.store import is_url

_SAVED = ("state.json", "dataset_dict.json")
"""The files of a folder that ``save_to_disk`` wrote, of one split or of several."""
_KEPT = 64
"""The number of the last rows of a stream that are kept for threads that ask for them a little later."""


class HuggingFaceDataset(Recordings):
    """The rows of a data set of the ``datasets`` library, with a column of sound; needs the extra ``datasets``.

    Sound is decoded by this package, so that torchcodec is not needed. Streamed rows are read in order, once to check
    all recordings and once to encode them.

    Args:
        path: the id of a data set of the hub, a folder of one (of Parquet files), a folder that
            ``save_to_disk`` wrote, or a ``.parquet`` file or a pattern of some.
        split: the name of the split.
        config: the name of the configuration (subset) of a data set that has several.
        revision: the branch, tag or commit of a data set of the hub; ``None`` is its main branch.
        columns: the names of the columns; ``None`` is ``audio`` and ``caption``. Without a column of ids, a clip is
            known by its split and the number of its row.
        streaming: whether to read the data set row by row from where it is, instead of fetching it or copying it to the
            library's cache first; it has no effect on a folder that ``save_to_disk`` wrote.
        max_missing: the largest share of the rows, from 0 to 1, that may be without sound or unreadable.
        channels: the channels of a file that are used: "first" for the first ones, or "mean" for the mean of all.

    Raises:
        UserError: if the library is not installed, the data set cannot be opened, it has no such split or columns, a
            row has no caption, or two rows have the same id.
    """

    def __init__(
        self,
        path: str,
        split: str = "train",
        config: str | None = None,
        revision: str | None = None,
        columns: Columns | None = None,
        streaming: bool = False,
        max_missing: float = 0.05,
        channels: Channels = "first",
    ) -> None:
        super().__init__(str(path), max_missing=max_missing, channels=channels, remedy="correct the data set")
        columns = Columns() if columns is None else columns
        self.path, self.split, self.config, self.revision = str(path), split, config, revision
        self.columns, self.streaming = columns, streaming
        self._where = f"{path} ({split})"
        texts, self._sounds = _open(self.path, split, config, revision, columns, streaming=streaming)
        items = [
            (
                f"{split}/{i}" if columns.id is None else columns.id_of(row, where=f"{self._where} row {i}"),
                columns.captions_of(row, where=f"{self._where} row {i}"),
            )
            for i, row in enumerate(_all(texts))
        ]
        if not items:
            raise UserError(f"{self._where} has no rows; name another split")
        refuse_repeated(
            [name for name, _ in items],
            lambda i: f"{self._where} row {i}",
            remedy="name a column of ids that differ with columns.id, or none to number the rows",
        )
        self._hold(items)

    def sound_state(self) -> str:
        """Which data set it is: the state of its files, and the fingerprint that its library gives it."""
        place = Path(self.path)
        found = place.rglob("*") if place.is_dir() else map(Path, glob.glob(self.path))  # noqa: PTH207 - or a pattern
        where = f"{self.path} {self.config} {self.revision} {getattr(self._sounds, '_fingerprint', '')}"
        return "\n".join([where, *(state_of(file) for file in sorted(found))])

    def source(self, i: int) -> Source:
        where = f"{self._where} row {i}"
        try:
            sound = self._sounds[i][self.columns.audio]
        except Exception as error:  # of the library, of Arrow, or of the network: not of this recording alone
            raise BrokenSourceError(f"{where} cannot be read ({_reason(error)}); fetch the data set again") from error
        content, path = (sound or {}).get("bytes"), (sound or {}).get("path")
        if content is not None:
            return SoundBytes(where, content)
        if not path:
            raise UserError(f'{where} has no sound in "{self.columns.audio}"; take it out of the data set')
        return SoundBytes(where, _fetched(path, where)) if is_url(path) else Path(path)


def _open(
    path: str, split: str, config: str | None, revision: str | None, columns: Columns, *, streaming: bool
) -> tuple[Any, Any]:
    """Opens a data set twice: its columns of text, to be read in order, and its column of sound, by the row's number.

    Raises:
        UserError: if it cannot be opened, or has no such split or columns.
    """
    refuse_to_load(path)
    datasets = _library()
    wanted = [name for name in columns.names if name != columns.audio]
    try:
        if any((Path(path) / name).is_file() for name in _SAVED):
            rows, streaming = _saved(datasets.load_from_disk(path), split), False
        else:
            place = {"path": path, "name": config, "revision": revision}
            if path.endswith(".parquet"):
                place = {"path": "parquet", "data_files": path}
            rows = datasets.load_dataset(**place, split=split, streaming=streaming)
        columns.check(rows.column_names or list(next(iter(rows), {})), where=f"{path} ({split})")
        texts = rows.select_columns(wanted)
        rows = rows.select_columns([columns.audio]).cast_column(columns.audio, datasets.Audio(decode=False))
        if streaming:
            with suppress(TypeError, ValueError):  # only files of columns can be read by columns
                texts = datasets.load_dataset(**place, split=split, streaming=True, columns=wanted)
    except UserError:
        raise
    except Exception as error:  # of the library, of Arrow, of the hub's client, or of its network
        hint = "" if Path(path).exists() or path.endswith(".parquet") else "; there is no such folder here either"
        raise UserError(
            f"the datasets library cannot open {path}, split {split} ({_reason(error)}){hint}; correct path, split or"
            " config, or go online if it is on the hub"
        ) from error
    return texts, _Stream(rows) if streaming else rows


def _saved(found: Any, split: str) -> Any:  # noqa: ANN401 - classes of a library that need not be installed
    """The split of what ``load_from_disk`` has returned."""
    if isinstance(found, dict):
        if split not in found:
            raise ValueError(f"its splits are {', '.join(found)}")
        return found[split]
    if found.split is not None and str(found.split) != split:
        raise ValueError(f"it is the split {found.split}")
    return found


def _library() -> Any:  # noqa: ANN401 - a module that need not be installed
    try:
        import datasets
    except ImportError as error:
        raise UserError(
            f"HuggingFaceDataset needs the datasets library ({_reason(error)}); pip install 'bsa-lightning[datasets]'"
        ) from error
    return datasets


def _all(texts: Any) -> Iterator[Mapping[str, object]]:  # noqa: ANN401 - a data set of the library
    """Yields all rows of the columns of text, in order."""
    try:
        for batch in texts.iter(batch_size=1000):
            for i in range(len(next(iter(batch.values())))):
                yield {name: cells[i] for name, cells in batch.items()}
    except Exception as error:  # of the library, of Arrow, or of the network
        raise UserError(f"the rows of the data set cannot be read ({_reason(error)}); fetch it again") from error


class _Stream:
    """Random access to a stream of rows that are read in order; going back starts the stream again.

    Args:
        rows: the stream.
    """

    def __init__(self, rows: Any) -> None:  # noqa: ANN401 - a data set of the library
        self._rows = rows
        self.__setstate__({"_rows": rows})

    def __getstate__(self) -> dict[str, Any]:
        """The state for another process, which reads the stream itself."""
        return {"_rows": self._rows}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._rows = state["_rows"]
        self._lock = threading.Lock()
        self._kept: OrderedDict[int, Any] = OrderedDict()
        self._coming: Iterator[tuple[int, Any]] = iter(())
        self._last = -1

    def __getitem__(self, i: int) -> Any:  # noqa: ANN401 - a row of the library
        with self._lock:
            if i in self._kept:
                return self._kept[i]
            if i <= self._last or self._last < 0:
                self._coming = enumerate(self._rows)
            for place, row in self._coming:
                self._kept[place], self._last = row, place
                if len(self._kept) > _KEPT:
                    self._kept.popitem(last=False)
                if place == i:
                    return row
        raise ValueError(f"it ends after row {self._last}")


def _fetched(path: str, where: str) -> bytes:
    """The content of a file that a row refers to, which may be in a zip file or on the hub."""
    import fsspec

    try:
        with fsspec.open(path, "rb") as file:
            content: bytes = file.read()
    except Exception as error:  # of any of the file systems of fsspec
        raise UserError(f"{where} is {path}, which cannot be read ({_reason(error)})") from error
    return content


def _reason(error: BaseException) -> str:
    """The first line of an error's message, or of its cause's, cut to a readable length."""
    while error.__cause__ is not None and type(error).__name__.startswith("DatasetGeneration"):
        error = error.__cause__  # these messages say only that something else went wrong
    first = (str(error).splitlines() or [""])[0].strip() or type(error).__name__
    return first if len(first) <= _LONGEST_REASON else f"{first[:_LONGEST_REASON]}..."


_LONGEST_REASON = 200
