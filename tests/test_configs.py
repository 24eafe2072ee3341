"""Every YAML names its command in its first line, and that command builds all that it is about to run."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from command_lines import ROOT, read

from bsa_lightning.teachers import folder

CONFIGS = sorted(
    str(path.relative_to(ROOT)) for name in ("configs", "experiments") for path in (ROOT / name).rglob("*.yaml")
)
WEIGHTINGS = sorted((ROOT / "configs" / "weighting").glob("*.yaml"))


@pytest.fixture
def root(tmp_path, monkeypatch):
    """The repository's configurations beside stand-ins for what a user brings: own sound, ESC-10, trained teachers."""
    root = tmp_path / "root"
    for name in ("own/audio", "data/esc10/audio"):
        (root / name).mkdir(parents=True)
        soundfile.write(root / name / "a_0.wav", np.sin(np.arange(800)), 16_000)
    (root / "own" / "val.jsonl").write_text('{"location": "a_0.wav", "captions": "A tone"}\n')
    (root / "data" / "esc10" / "test.csv").write_text("audiocap_id,youtube_id,start_time,caption\n1,a,0,A tone\n")
    for name in ("configs", "experiments"):
        (root / name).symlink_to(ROOT / name)
    resolve = folder.resolve_folder
    monkeypatch.setattr(
        folder, "resolve_folder", lambda model: resolve(model if Path(model).is_dir() else folder.BUILT_IN)
    )
    return root


@pytest.mark.parametrize("path", CONFIGS)
def test_config_can_be_run(path, root, monkeypatch, tmp_path, capsys):
    command = (ROOT / path).read_text().splitlines()[0].removeprefix("# ")
    assert path in command.split()
    code = read(command, monkeypatch=monkeypatch, run=tmp_path / "run", instantiate=True, root=root)
    assert code == 0, capsys.readouterr().err


def test_weightings_differ_in_one_line():
    bodies = [path.read_text().splitlines()[1:] for path in WEIGHTINGS]
    assert len(bodies) >= 4
    assert all(len(body) == 1 for body in bodies)
