"""``lightning runs [FOLDER]``: the runs in a folder, how far each is, and what stopped it."""

from __future__ import annotations

import csv
import io
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bsa_lightning.cli.call import call, split
from bsa_lightning.cli.run_names import Named
from bsa_lightning.common.errors import UserError
from bsa_lightning.common.files import read_json
from bsa_lightning.common.locks import is_locked
from bsa_lightning.common.yaml_text import read_yaml
from bsa_lightning.reporting.table import aligned
from bsa_lightning.training.run_files import CONFIG, LAST_ERROR

HEADER = ("run", "model", "rounds", "updates", "state", "scored")


def run(words: list[str]) -> None:
    """Runs the command."""
    plain, options = split(words[1:])
    if len(plain) > 1:
        raise UserError(f"{' and '.join(plain)} are several folders; name one, or the folder that holds them")
    call(runs, [words[0], *(["--folder", plain[0]] if plain else []), *options])


def runs(folder: Path = Path("runs")) -> None:
    """Lists the runs in a folder: rounds and updates, whether each has finished, stopped or failed, and its scores.

    Updates are those of the last checkpoint, of ``metrics.csv`` or of the last error, whichever is most.

    Args:
        folder: a folder of runs, at any depth, or a run.
    """
    named = Named(Path(folder), "folder")
    named.refuse_other_than_folder("a folder of runs, such as runs")
    found = [named.path] if named.is_run else named.runs_inside()
    if not found:
        raise UserError(f"folder is {folder}, which holds no run; name another, or start one with lightning fit")
    rows = [describe(each) for each in found]
    print(aligned(HEADER, [row[:-1] for row in rows]), end="")
    for row in rows:
        if row[-1]:
            print(f"{row[0]}: {row[-1]}")


def describe(run: Path) -> tuple[str, ...]:
    """Returns the cells of a run, and its last error; empty if there is none.

    Args:
        run: the folder of the run.
    """
    try:
        config, error = read_yaml(run / CONFIG) if (run / CONFIG).is_file() else {}, _last_error(run)
    except UserError as reason:
        return str(run), "", "", "", "unreadable", "", str(reason)
    model = _within(config, "model")
    kind = str(model.get("class_path", "")).rpartition(".")[2]
    planned = _rounds(_within(model, "init_args", "plan"))
    done = max(_logged_updates(run), _saved_updates(run), int(error.get("updates", 0)))
    trained = len(Named(run, "run").students()) if planned else int((run / "model").is_dir())
    is_whole = trained >= max(1, len(planned)) or (kind == "Generation" and not error and (run / "samples").is_dir())
    total = sum(planned) or _most(_within(config, "trainer").get("max_steps"))
    state = "finished" if is_whole and not error else "stopped" if error.get("stopped", True) else "failed"
    if is_locked(run):
        state = "at work"
    return (
        str(run),
        kind,
        f"{min(trained, len(planned))} of {len(planned)}" if planned else "",
        _updates(total if is_whole and not error else done, total, done, _within(model, "init_args", "plan")),
        state,
        "yes" if (run / "scores.csv").is_file() else "no",
        str(error.get("error", "")),
    )


def _updates(reached: int, total: int, done: int, plan: Mapping[str, Any]) -> str:
    """Returns the updates of a run out of those that are planned.

    Args:
        reached: the number to show for a plan with a fixed number of updates.
        total: the number of updates that are planned; 0 if that is not known.
        done: the number of updates that are known to be done.
        plan: the plan; the rounds of one with ``patience`` or ``most_updates`` end sooner or later than planned.
    """
    if not total:
        return str(done or "")
    if plan.get("patience") is None and plan.get("most_updates") is None:
        return f"{reached} of {total}"
    return f"{done}, planned {total}"


def _rounds(plan: Mapping[str, Any]) -> list[int]:
    """Returns the number of updates of each round of a plan; empty without one."""
    start, end, factor, updates = (plan.get(name) for name in ("start_steps", "end_steps", "factor", "updates"))
    if isinstance(updates, list):
        return updates
    count, factor = 0, factor or 2
    if not (isinstance(start, int) and isinstance(end, int) and isinstance(updates, int) and factor > 1):
        return []
    while start > end:
        start, count = start // factor, count + 1
    return [updates] * count


def _logged_updates(run: Path) -> int:
    """Returns the number of updates up to the last row of ``metrics.csv`` with a loss."""
    try:
        with (run / "metrics.csv").open(newline="", encoding="utf-8") as file:
            steps = [int(row["step"]) + 1 for row in csv.DictReader(file) if row.get("train/loss")]
    except (OSError, ValueError, KeyError, TypeError, csv.Error):
        return 0
    return max(steps, default=0)


class _Anything:
    """Stands for a class or function in a checkpoint, none of which is imported or called."""

    def __init__(self, *_: object) -> None: ...

    def __call__(self, *_: object) -> _Anything:
        return self

    def __setitem__(self, *_: object) -> None: ...

    def __setstate__(self, _: object) -> None: ...


class _Reader(pickle.Unpickler):
    """Reads the numbers and names of a checkpoint, without torch, its tensors, or any code in it."""

    def find_class(self, *_: str) -> type[_Anything]:
        return _Anything

    def persistent_load(self, _: object) -> None:
        return None


def _saved_updates(run: Path) -> int:
    """Returns the number of updates of the last checkpoint; 0 if it cannot be read."""
    try:
        with zipfile.ZipFile(run / "checkpoints" / "last.ckpt") as archive:
            name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
            steps = _Reader(io.BytesIO(archive.read(name))).load()["global_step"]
            return steps if isinstance(steps, int) else 0
    except (OSError, zipfile.BadZipFile, StopIteration, pickle.UnpicklingError, ValueError, TypeError, LookupError,
            AttributeError, EOFError):  # fmt: skip
        return 0


def _last_error(run: Path) -> Mapping[str, Any]:
    return read_json(run / LAST_ERROR) if (run / LAST_ERROR).is_file() else {}


def _within(content: object, *names: str) -> Mapping[str, Any]:
    """Returns a mapping inside of others; empty where there is none."""
    for name in names:
        content = content.get(name) if isinstance(content, Mapping) else None
    return content if isinstance(content, Mapping) else {}


def _most(steps: object) -> int:
    return steps if isinstance(steps, int) and steps > 0 else 0
