"""Every YAML names its command in its first line, and that command builds all that it is about to run."""

from pathlib import Path

import pytest
from command_lines import ROOT, read

from bsa_lightning.teachers import folder

CONFIGS = sorted(path for name in ("configs", "experiments") for path in (ROOT / name).rglob("*.yaml"))
WEIGHTINGS = sorted((ROOT / "configs" / "weighting").glob("*.yaml"))


def command_of(path):
    return path.read_text().splitlines()[0].removeprefix("# ")


@pytest.fixture(autouse=True)
def stand_in(monkeypatch):
    """Where a teacher's weights are not there, the built-in one stands in."""
    resolve = folder.resolve_folder

    def resolve_or_stand_in(model):
        return resolve(model if Path(model).is_dir() else folder.BUILT_IN)

    monkeypatch.setattr(folder, "resolve_folder", resolve_or_stand_in)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to(ROOT)))
def test_config_can_be_run(path, monkeypatch, tmp_path, capsys):
    command = command_of(path)
    assert str(path.relative_to(ROOT)) in command.split()
    code = read(command, monkeypatch=monkeypatch, run=tmp_path / "run", instantiate=True)
    assert code == 0, capsys.readouterr().err


def test_weightings_differ_in_one_line():
    bodies = [path.read_text().splitlines()[1:] for path in WEIGHTINGS]
    assert len(bodies) >= 4
    assert all(len(body) == 1 for body in bodies)
