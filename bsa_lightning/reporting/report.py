"""``lightning report``: run folders in, table, figures and listening page out."""

from __future__ import annotations

from pathlib import Path

from bsa_lightning.files import whole
from bsa_lightning.reporting import figure, page, snr, table
from bsa_lightning.reporting.run_folder import read_results


def report(runs: list[Path], out: Path | None = None) -> None:
    """Writes a table, figures and a self-contained listening page, and prints the table.

    The files are ``table.md``, ``table.csv``, ``figure.png``, ``figure.svg``, ``index.html`` and, of runs that logged
    their distillation error by signal-to-noise ratio, ``snr.png`` and ``snr.svg``.

    Args:
        runs: folders of scored runs, such as runs/demo.
        out: folder for the files; none writes them into ``report/`` of the first run.
    """
    runs = [Path(run) for run in runs]
    results = read_results(runs)
    folder = runs[0] / "report" if out is None else Path(out)
    text = table.markdown(results)
    figure.draw(results, [folder / "figure.png", folder / "figure.svg"])
    snr.draw(runs, [folder / "snr.png", folder / "snr.svg"])
    for name, content in (
        ("table.md", text),
        ("table.csv", table.comma_separated(results)),
        ("index.html", page.html(runs, results)),
    ):
        with whole(folder / name) as partial:
            partial.write_text(content, encoding="utf-8")
    print(text)
    print(f"table, figures and listening page: {folder}")
