"""Every kind of wrong configuration, command line and checkpoint is one sentence without a trace; good ones work."""

from random import Random

import pytest
from command_faults import CHECKPOINTS, fitted
from config_faults import CONFIGS, GOOD_CONFIGS
from word_faults import GOOD_WORDS, WORDS

from bsa_lightning.common.errors import UserError


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """With a run that checkpoints are taken from."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "template").mkdir()
    assert fitted(folder / "template").read() == 0
    return folder


def contents(folder):
    return {path: path.read_bytes() if path.is_file() else b"" for path in sorted(folder.rglob("*"))}


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(
    "build", [kind[name] for kind in (CONFIGS, WORDS, CHECKPOINTS) for name in kind],
    ids=[name for kind in (CONFIGS, WORDS, CHECKPOINTS) for name in kind],
)  # fmt: skip
def test_a_mistake_is_one_sentence_without_a_trace(home, build, seed, request, monkeypatch):
    folder = home / f"{len(list(home.iterdir()))}"
    folder.mkdir()
    monkeypatch.chdir(folder)
    case = build(folder, Random(f"{request.node.name} {seed}"))
    before = contents(folder)
    with pytest.raises(UserError, match=r"^lightning .*: \S"):
        case.read()
    assert contents(folder) == before
    assert not (home / "owned").exists()


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(
    "build", [kind[name] for kind in (GOOD_CONFIGS, GOOD_WORDS) for name in kind],
    ids=[name for kind in (GOOD_CONFIGS, GOOD_WORDS) for name in kind],
)  # fmt: skip
def test_what_is_good_is_taken(tmp_path, build, seed, request, monkeypatch):
    monkeypatch.chdir(tmp_path)
    case = build(tmp_path, Random(f"{request.node.name} {seed}"))
    assert case.read() == case.expected
