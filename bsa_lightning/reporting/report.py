"""``lightning report``: run folders in, table, figures and listening page out."""

from __future__ import annotations

from pathlib import Path

from bsa_lightning.common.errors import UserError
from bsa_lightning.common.files import atomic_write, refuse_file
from bsa_lightning.reporting import figure, page, snr, table, training_seed_differences
from bsa_lightning.reporting.repeats import one_of_each
from bsa_lightning.reporting.results import read_results
from bsa_lightning.training.run_files import REPORT_FILES

PAGE = "index.html"


def report(runs: list[Path], out: Path | None = None) -> None:
    """Writes a table, figures and a self-contained listening page, and prints the table.

    The files are ``table.md``, ``table.csv``, ``figure.png``, ``figure.svg`` and ``index.html``; for runs that logged
    their distillation error by signal-to-noise ratio also ``snr.png`` and ``snr.svg``; for runs that differ in their
    seed only also ``differences.csv``, with paired differences over the seeds. Of such repeats, the sounds and the
    errors by signal-to-noise ratio of the first run are shown.

    Args:
        runs: the folders of scored runs, such as runs/demo.
        out: the folder for the files; ``None`` is ``report/`` in the first run.

    Raises:
        UserError: if a folder has no scores, the runs cannot be compared, or ``out`` holds files that are not a
            report's.
    """
    runs = [Path(run) for run in runs]
    if len({run.resolve() for run in runs}) < len(runs):
        raise UserError("runs names one folder twice; name each run once")
    folder = runs[0] / "report" if out is None else Path(out)
    _refuse_foreign(folder)
    results, shown = read_results(runs), one_of_each(runs)
    found = training_seed_differences.differences(results)
    text = table.markdown(results)
    if found:
        text += "\n" + table.aligned(training_seed_differences.HEADER, training_seed_differences.cells(found))
        text += "\n" + training_seed_differences.NOTE + "\n"
    files = {
        "table.md": text,
        "table.csv": table.comma_separated(results),
        PAGE: page.html(shown, results, found, scored=runs),
    }
    if found:
        files["differences.csv"] = training_seed_differences.comma_separated(found)
    for name, content in sorted(files.items(), key=lambda item: item[0] != PAGE):  # the page says that it is ours
        with atomic_write(folder / name) as partial:
            partial.write_text(content, encoding="utf-8")
    figure.draw(results, [folder / "figure.png", folder / "figure.svg"])
    snr.draw(shown, [folder / "snr.png", folder / "snr.svg"])
    print(text)
    print(f"table, figures and listening page: {folder}")


def _refuse_foreign(folder: Path) -> None:
    """Refuses a folder in which a report would replace files that are not a report's.

    Raises:
        UserError: if there is such a file.
    """
    refuse_file(folder, setting="out")
    taken = [name for name in REPORT_FILES if (folder / name).exists()]
    if taken and not page.is_ours(folder / PAGE):
        raise UserError(f"out is {folder}, where {taken[0]} is not a report's; name another folder, or remove it")
