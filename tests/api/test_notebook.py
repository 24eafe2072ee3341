"""The notebook of the documentation: short, and it runs."""

import re

import nbformat
import pytest
from command_lines import ROOT
from nbclient import NotebookClient

PATH = ROOT / "docs" / "first-student.ipynb"


@pytest.fixture
def notebook():
    return nbformat.read(PATH, as_version=4)


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def kinds(notebook):
    """The kinds of output that a reader sees, in order."""
    return [kind for cell in code(notebook) for output in cell.outputs for kind in sorted(output.get("data", ()))]


def test_it_has_at_most_twenty_lines(notebook):
    assert sum(len(cell.source.splitlines()) for cell in code(notebook)) <= 20


def test_it_is_committed_with_a_table_a_figure_and_sound(notebook):
    shown = kinds(notebook)
    assert {"text/markdown", "image/png", "text/html"} <= set(shown)
    assert any("<audio" in output["data"].get("text/html", "") for output in code(notebook)[-1].outputs)
    assert not any(output.output_type in ("stream", "error") for cell in code(notebook) for output in cell.outputs)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_it_runs_and_shows_the_same_kinds(notebook, tmp_path, monkeypatch):
    committed = kinds(notebook)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    client = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    assert kinds(notebook) == committed
    table = next(output.data["text/markdown"] for output in code(notebook)[1].outputs if "data" in output)
    assert len(re.findall(r"\| Student \(bsa\)", table)) == 3
    assert (tmp_path / "runs" / "notebook" / "rounds" / "3-1steps").is_dir()
