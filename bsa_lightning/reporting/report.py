"""``lightning report``: run folders in, table, figure and listening page out."""

from __future__ import annotations

from pathlib import Path

from bsa_lightning.files import whole
from bsa_lightning.reporting import figure, page, table
from bsa_lightning.reporting.run_folder import read_results


def report(runs: list[Path], out: Path | None = None) -> None:
    """Writes ``table.md``, ``table.csv``, ``figure.png``, ``figure.svg`` and ``index.html``, and prints the table.

    Args:
        runs: folders of scored runs, such as runs/demo.
        out: folder for the files; none writes them into ``report/`` of the first run.
    """
    runs = [Path(run) for run in runs]
    results = read_results(runs)
    folder = runs[0] / "report" if out is None else Path(out)
    text = table.markdown(results)
    figure.draw(results, [folder / "figure.png", folder / "figure.svg"])
    for name, content in (
        ("table.md", text),
        ("table.csv", table.comma_separated(results)),
        ("index.html", page.html(runs, results=results, figure_svg=(folder / "figure.svg").read_text())),
    ):
        with whole(folder / name) as partial:
            partial.write_text(content)
    print(text)
    print(f"table, figure and listening page: {folder}")
