"""The rows of a set of clips: gathered over batches and ranks, each clip once, in the order of their numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torchmetrics import Metric

from bsa_lightning.common.errors import UserError
from bsa_lightning.common.files import write_tensors
from bsa_lightning.evaluation.embeddings.base import Features


class ClipRows:
    """The rows of ``n`` clips, on the CPU in float64.

    Args:
        clips: the numbers of the clips, (n,), in rising order.
        counts: the number of rows of each clip, (n,).
        rows: the rows, (counts.sum(), d), clip after clip.
        logits: the class logits of the clips, (n, classes); ``None`` if the embedding is not a classifier.
    """

    def __init__(self, clips: Tensor, counts: Tensor, rows: Tensor, logits: Tensor | None = None) -> None:
        self.clips, self.counts, self.rows, self.logits = clips, counts, rows, logits

    def __len__(self) -> int:
        return len(self.clips)

    def at(self, positions: Tensor) -> ClipRows:
        """Returns the clips at these positions, an index tensor (m,), in which a position may come more than once."""
        parts = self.rows.split(self.counts.tolist())
        return ClipRows(
            self.clips[positions],
            self.counts[positions],
            torch.cat([parts[i] for i in positions.tolist()] or [self.rows[:0]]),
            None if self.logits is None else self.logits[positions],
        )

    def clip_of_rows(self) -> Tensor:
        """Returns the number of each row's clip, (counts.sum(),)."""
        return self.clips.repeat_interleave(self.counts)

    def of(self, clips: Tensor) -> ClipRows:
        """Returns the clips of these numbers, (m,).

        Raises:
            UserError: if a number is not among those of the clips.
        """
        positions = torch.searchsorted(self.clips, clips).clamp(max=len(self) - 1)
        if not torch.equal(self.clips[positions], clips):
            missing = clips[self.clips[positions] != clips].tolist()
            raise UserError(
                f"clips {missing[:3]} were never embedded, so nothing can be compared with them; score them again"
            )
        return self.at(positions)

    def tensors(self) -> dict[str, Tensor]:
        """Returns the tensors for a file; rows are in float32, the precision of embeddings."""
        found = {"clips": self.clips, "counts": self.counts, "rows": self.rows.float()}
        return found if self.logits is None else {**found, "logits": self.logits.float()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> ClipRows:
        """Returns the rows that :meth:`tensors` returned these tensors for."""
        logits = tensors.get("logits")
        rows = tensors["rows"].double()
        return cls(tensors["clips"], tensors["counts"], rows, None if logits is None else logits.double())


def mean(rows: ClipRows) -> float:
    """Returns the mean over clips that have one number each, such as their trajectory errors."""
    return float(rows.rows.mean())


def save_rows(path: Path, rows: Mapping[str, ClipRows]) -> None:
    """Writes the rows of several embeddings, by name, to a safetensors file."""
    tensors = {f"{name}.{part}": value for name, found in rows.items() for part, value in found.tensors().items()}
    write_tensors(path, {name: value.clone() for name, value in tensors.items()})


def load_rows(path: Path) -> dict[str, ClipRows]:
    """Reads the file of :func:`save_rows`.

    Raises:
        UserError: if the file is damaged.
    """
    by_name: dict[str, dict[str, Tensor]] = {}
    try:
        for key, value in load_file(path).items():
            name, _, part = key.rpartition(".")
            by_name.setdefault(name, {})[part] = value
        return {name: ClipRows.from_tensors(tensors) for name, tensors in by_name.items()}
    except (SafetensorError, KeyError) as error:
        raise UserError(
            f"{path} is damaged ({error}); delete it with scores.csv, and run lightning test again"
        ) from error


class RowStore(Metric):
    """A metric that collects rows; ``compute`` returns the :class:`ClipRows` of all ranks.

    A clip that comes more than once, as from a sampler that gives all ranks equally many clips, counts once. The states
    are not saved in checkpoints.

    Args:
        num_features: the number of features of a row.
    """

    is_differentiable = False
    higher_is_better = None
    full_state_update = False
    clips: list[Tensor]
    counts: list[Tensor]
    rows: list[Tensor]
    logits: list[Tensor]

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features
        # The states are flat float64 lists, since torchmetrics sends a flat tensor of `dtype` for a rank without clips.
        for name in ("clips", "counts", "rows", "logits"):
            self.add_state(name, [], dist_reduce_fx="cat", persistent=False)

    def update(self, features: Features, clips: Sequence[int]) -> None:
        """Adds the features of a batch.

        Args:
            features: the features, with rows (batch, rows of a clip, num_features).
            clips: the number of each clip.

        Raises:
            UserError: if a value is not finite, or the shapes do not fit.
        """
        rows = features.rows
        if rows.ndim != 3 or rows.shape[0] != len(clips) or rows.shape[2] != self.num_features:
            raise UserError(
                f"an embedding gave rows {tuple(rows.shape)} for {len(clips)} clips, but ({len(clips)}, rows of a clip,"
                f" {self.num_features}) is what it must give; correct its forward"
            )
        for values in (rows, features.logits):
            if values is not None and not values.isfinite().all():
                raise UserError("an embedding is not finite, so the generated sound is broken; listen to the samples")
        numbers = torch.tensor(clips, dtype=torch.float64, device=rows.device)
        self.clips.append(numbers)
        self.counts.append(torch.full_like(numbers, rows.shape[1]))
        self.rows.append(rows.double().flatten())
        if features.logits is not None:
            self.logits.append(features.logits.double().flatten())

    def compute(self) -> ClipRows:
        """Returns the rows of all ranks."""
        clips, counts = _joined(self.clips).long(), _joined(self.counts).long()
        rows = _joined(self.rows).reshape(-1, self.num_features)
        logits = _joined(self.logits)
        found = ClipRows(clips, counts, rows, logits.reshape(len(clips), -1) if len(logits) else None)
        first = {clip: position for position, clip in reversed(list(enumerate(clips.tolist())))}
        return found.at(torch.tensor([first[clip] for clip in sorted(first)], dtype=torch.long))

    @property
    def dtype(self) -> torch.dtype:
        """The type of the states, which does not depend on the precision of the model."""
        return torch.float64

    def set_dtype(self, dst_type: str | torch.dtype) -> RowStore:  # noqa: ARG002
        """Does nothing: the states stay in float64."""
        return self


def _joined(state: list[Tensor] | Tensor) -> Tensor:
    """Returns a state as one tensor on the CPU, before or after it was gathered."""
    parts = [state] if isinstance(state, Tensor) else state
    return torch.cat(parts).cpu() if parts else torch.zeros(0, dtype=torch.float64)
