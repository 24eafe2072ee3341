"""Every YAML names its command in its first line, and that command builds all that it is about to run."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import tangoflux_checkpoint
import torch
import yaml
from command_lines import ROOT, read
from tiny_model import write_model

from bsa_lightning.models import loading, registry

CONFIGS = sorted(
    str(path.relative_to(ROOT)) for name in ("configs", "experiments") for path in (ROOT / name).rglob("*.yaml")
)
SWEEPS = sorted(path for name in ("configs", "experiments") for path in (ROOT / name).rglob("*.yml"))
WEIGHTINGS = sorted((ROOT / "configs" / "weighting").glob("*.yaml"))


@pytest.fixture(scope="module")
def tango(tmp_path_factory):
    """In place of a published teacher: a model with as many trained timesteps."""
    return write_model(tmp_path_factory.mktemp("tango"), num_train_timesteps=1000)


@pytest.fixture(scope="module")
def tangoflux(tmp_path_factory, tango):
    """In place of a published flow teacher, whose steps need not divide anything."""
    return tangoflux_checkpoint.write_model(tmp_path_factory.mktemp("tangoflux"), text_folder=tango)


@pytest.fixture
def root(tmp_path, monkeypatch, tango, tangoflux):
    """The repository's configurations beside stand-ins for what a user brings: own sound, ESC-10, trained teachers."""
    root = tmp_path / "root"
    for name in ("own/val", "data/esc10/audio", "data/AUDIOCAPS/audio_16000Hz/test"):
        (root / name).mkdir(parents=True)
        soundfile.write(root / name / "a_0.wav", np.sin(np.arange(800)), 16_000)
    (root / "own/val/a_0.txt").write_text("A tone")
    (root / "data/AUDIOCAPS/test_audiocaps_subset.json").write_text('{"location": "a_0.wav", "captions": "A tone"}\n')
    for name in ("train", "test"):
        list_of_one = "audiocap_id,youtube_id,start_time,caption\n1,a,0,A tone\n"
        (root / "data" / "esc10" / f"{name}.csv").write_text(list_of_one)
    for name in ("configs", "experiments"):
        (root / name).symlink_to(ROOT / name)
    resolve = registry.resolve_folder

    def stand_in(model):
        published = tangoflux if str(model) == "models/tangoflux" else tango
        other = published if str(model).startswith("models/") else "tiny-flow" if "flow" in str(model) else "tiny"
        return resolve(model if Path(model).is_dir() else other)

    for module in (loading, registry):
        monkeypatch.setattr(module, "resolve_folder", stand_in)
    for name in ("vggish", "pann", "yamnet"):  # whose weights nobody has here
        monkeypatch.setattr(f"bsa_lightning.evaluation.embeddings.{name}.located", lambda *_: Path("nowhere"))
        monkeypatch.setattr(f"bsa_lightning.evaluation.embeddings.{name}.fill", lambda *_: "0")
    monkeypatch.setattr("bsa_lightning.evaluation.embeddings.yamnet.sha256_of_data", lambda _: "")
    return root


def name_of(path):
    """What ``--config`` takes for a recipe of the package."""
    return path.removeprefix("configs/").removesuffix(".yaml")


@pytest.mark.parametrize("path", CONFIGS)
def test_config_can_be_run(path, root, monkeypatch, tmp_path, capsys):
    command = (ROOT / path).read_text().splitlines()[0].removeprefix("# ")
    assert {path, name_of(path)} & set(command.split())
    if "trainer/gpu" in command and not torch.cuda.is_available():
        assert read(command, monkeypatch=monkeypatch, run=tmp_path / "run", instantiate=True, root=root) == 2
        assert "trainer.accelerator is gpu, but torch finds no GPU on this machine" in capsys.readouterr().err
        assert (
            read(f"{command} --plan", monkeypatch=monkeypatch, run=tmp_path / "run", instantiate=True, root=root) == 0
        )
        command += " --trainer.accelerator cpu"
    if "lora" in path:  # the model that stands for all of them is too narrow for the recipe's rank
        command += " --model.adapter.rank 2"
    code = read(command, monkeypatch=monkeypatch, run=tmp_path / "run", instantiate=True, root=root)
    assert code == 0, capsys.readouterr().err


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_value_of_a_sweep_is_one(path, root, monkeypatch, tmp_path, capsys):
    sweep = yaml.safe_load(path.read_text())
    words = [word for word in sweep["command"] if word != "${args}"]
    for name, parameter in sweep["parameters"].items():
        for value in parameter["values"]:
            command = " ".join([*words, f"--{name}={value}"])
            code = read(command, monkeypatch=monkeypatch, run=tmp_path / "run", instantiate=False, root=root)
            assert code == 0, capsys.readouterr().err


def test_weightings_differ_in_one_line():
    bodies = [path.read_text().splitlines()[1:] for path in WEIGHTINGS]
    assert len(bodies) >= 4
    assert all(len(body) == 1 for body in bodies)


@pytest.mark.parametrize(
    ("further", "start_steps", "updates", "batch_size", "scale", "num_embeddings"),
    [
        (["experiments/study/study.yaml"], 16, 240, 8, 1.0, 2),
        (["experiments/esc10/ladder.yaml"], 8, 60, 16, 2.0, 0),
        (
            [f"experiments/{name}.yaml" for name in ("study/study", "esc10/ladder", "weightings/esc10")],
            16,
            240,
            8,
            1.0,
            0,
        ),
    ],
    ids=["study", "esc10", "study on esc10"],
)
def test_what_is_written_about_the_experiments_does_not_change_with_the_demo(
    further, start_steps, updates, batch_size, scale, num_embeddings, monkeypatch, tmp_path, capsys
):
    words = " ".join(f"--config {path}" for path in ["configs/demo.yaml", *further])
    command = f"lightning fit {words} --print_config"
    assert read(command, monkeypatch=monkeypatch, run=tmp_path / "run", instantiate=False) == 0
    found = yaml.safe_load(capsys.readouterr().out)
    model = found["model"]["init_args"]
    assert model["plan"] | {"start_steps": start_steps, "end_steps": 1, "updates": updates} == model["plan"]
    assert model["optimizer"]["init_args"]["lr"] == 1e-4
    assert (model["weighting"]["class_path"].rpartition(".")[2], model["ema_decay"]) == ("BSA", None)
    assert model["guidance"]["init_args"] == {"scale": scale}
    assert found["data"]["init_args"]["batch_size"] == batch_size
    assert found["trainer"]["val_check_interval"] == updates
    assert len(found["scoring"]["embeddings"]) == num_embeddings


def test_a_piece_changes_one_setting_of_the_scoring(monkeypatch, tmp_path, capsys):
    words = "--config configs/demo.yaml --config configs/data/own.yaml --scoring.batch_size 4"
    command = f"lightning fit {words} --print_config"
    assert read(command, monkeypatch=monkeypatch, run=tmp_path / "run", instantiate=False) == 0
    scoring = yaml.safe_load(capsys.readouterr().out)["scoring"]
    assert (scoring["num_captions"], scoring["batch_size"]) == (48, 4)
    assert scoring["clips"]["class_path"].endswith("CaptionedFolder")
