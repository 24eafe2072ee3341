import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from embedding_weights import (
    frechet_audio_distance,
    reference_log_mel,
    refuse_network,
    sounds,
    vggish_weights,
)
from lightning.pytorch import Trainer
from lightning.pytorch.demos.boring_classes import BoringModel
from tolerances import FLOAT32
from torch.nn.functional import conv2d, linear, max_pool2d, relu
from toy_clips import ToyClips
from web_server import serving

from bsa_lightning.common.errors import UserError
from bsa_lightning.common.files import sha256_of_file
from bsa_lightning.evaluation.embeddings.vggish import PUBLISHED, VGGish
from bsa_lightning.evaluation.metrics.frechet import frechet_distance

HUB = [Path(torch.hub.get_dir()) / f"harritaylor_torchvggish_{branch}" for branch in ("master", "main")]
"""Where torch.hub keeps torchvggish's own code, if somebody has fetched it."""


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("vggish") / "random.pth"
    torch.save(vggish_weights(), path)
    return path


@pytest.fixture(scope="module")
def embedding(file):
    return VGGish(file)


def reference_patches(wave):
    log_mel = reference_log_mel(wave.double().numpy(), offset=0.01)
    return log_mel[: len(log_mel) // 96 * 96].reshape(-1, 96, 64)


def reference_network(weights, patch):
    """VGGish of one patch (96, 64), layer by layer, without the last activation."""
    x = torch.as_tensor(patch, dtype=torch.float32)[None, None]
    for stage in ((0,), (3,), (6, 8), (11, 13)):
        for i in stage:
            x = relu(conv2d(x, weights[f"features.{i}.weight"], weights[f"features.{i}.bias"], padding=1))
        x = max_pool2d(x, 2)
    row = torch.cat([x[0, :, i, j] for i in range(6) for j in range(4)])
    for i in (0, 2, 4):
        row = linear(relu(row) if i else row, weights[f"embeddings.{i}.weight"], weights[f"embeddings.{i}.bias"])
    return row


def assert_rows_close(ours, theirs):
    """As features of size one."""
    size = theirs.abs().max()
    torch.testing.assert_close(ours / size, theirs / size, **FLOAT32)


@pytest.mark.parametrize("which", range(3), ids=["noise", "tone", "clicks"])
def test_patches_are_torchvggishs(embedding, which):
    wave = sounds(32_000)[which]
    ours = embedding.front_end.patches(wave[None])[0]
    np.testing.assert_allclose(ours.numpy(), reference_patches(wave), rtol=0, atol=1e-5)


def test_rows_are_those_of_the_files_network(embedding):
    waves = sounds(32_000)[1:]
    rows = embedding(waves).rows
    for wave, windows in zip(waves, rows, strict=True):
        patches = reference_patches(wave)
        assert_rows_close(windows, torch.stack([reference_network(vggish_weights(), patch) for patch in patches]))
    assert (rows < 0).any()  # no last activation
    assert not torch.allclose(rows[0], rows[1], atol=0.1)


@pytest.mark.parametrize(("seconds", "num_rows"), [(0.5, 1), (0.975, 1), (1.9, 1), (1.95, 2), (10.24, 10)])
def test_rows_of_a_clip(embedding, seconds, num_rows):
    features = embedding(torch.zeros(1, int(seconds * 16_000)))
    assert features.rows.shape == (1, num_rows, embedding.num_features)
    assert features.logits is None


def test_it_is_frozen_and_touches_no_network(file, monkeypatch):
    refuse_network(monkeypatch)
    embedding = VGGish(file).train()
    assert not any(module.training for module in embedding.modules())
    assert not any(weight.requires_grad for weight in embedding.parameters())
    assert not embedding(sounds(16_000)[:1].requires_grad_()).rows.requires_grad


def test_fingerprint_changes_with_the_bytes(file, embedding, tmp_path):
    torch.save(vggish_weights(seed=1), tmp_path / "other.pth")
    same = tmp_path / "same.pth"
    same.write_bytes(file.read_bytes())
    assert VGGish(same).fingerprint == embedding.fingerprint != VGGish(tmp_path / "other.pth").fingerprint


def test_a_missing_file_is_named_with_its_source(tmp_path):
    with pytest.raises(UserError, match=r"gone\.pth.*put vggish-10086976\.pth from https://github\.com/harritaylor"):
        VGGish(tmp_path / "gone.pth")


@pytest.mark.parametrize("weights", [None, "models", "models/vggish-10086976.pth"], ids=["default", "folder", "file"])
def test_the_published_file_is_fetched_to_where_the_setting_says(file, embedding, tmp_path, monkeypatch, weights):
    cache, models = tmp_path / "cache", tmp_path / "models"
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    models.mkdir()
    with serving(file.read_bytes()) as (url, asked):
        published = dataclasses.replace(PUBLISHED, url=url, sha256=sha256_of_file(file))
        monkeypatch.setattr("bsa_lightning.evaluation.embeddings.vggish.PUBLISHED", published)
        for _ in range(2):
            assert VGGish(None if weights is None else tmp_path / weights).fingerprint == embedding.fingerprint
    assert len(asked) == 1
    kept = cache / "bsa-lightning" / "weights" if weights is None else models
    assert (kept / PUBLISHED.name).read_bytes() == file.read_bytes()


def test_offline_a_sentence_says_what_belongs_where(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    refuse_network(monkeypatch)
    with pytest.raises(UserError) as refused:
        VGGish()
    assert str(refused.value) == (
        f"{tmp_path}/bsa-lightning/weights/vggish-10086976.pth is not there, and HF_HUB_OFFLINE is set; put"
        " vggish-10086976.pth from https://github.com/harritaylor/torchvggish/releases/tag/v0.1 there"
        " (sha256 10086976...)"
    )


def test_a_published_name_stands_for_the_published_bytes(file, tmp_path):
    path = tmp_path / PUBLISHED.name
    path.write_bytes(file.read_bytes())
    with pytest.raises(UserError, match=r"damaged or another file \(sha256 .* put vggish-10086976\.pth") as refused:
        VGGish(path)
    assert "if these are weights of your own, give the file another name" in str(refused.value)


def test_weights_of_ones_own_are_taken_and_said(file, caplog):
    VGGish(file)
    assert f"weights is {file}, which is not {PUBLISHED.name}" in caplog.text
    assert "whose scores are not published ones" in caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: weights.pop("features.8.bias"), r"it lacks features\.8\.bias"),
        (lambda weights: weights.update({"pproc.pca_means": torch.ones(1)}), r"a pproc\.pca_means too many"),
        (lambda weights: weights.update({"embeddings.4.bias": torch.ones(64)}), r"embeddings\.4\.bias is \(64,\), not"),
        (lambda weights: weights.update({"features.0.bias": "text"}), "holds no state dict"),
    ],
    ids=["lacking", "too many", "shape", "no tensor"],
)
def test_a_wrong_file_is_refused(tmp_path, change, message):
    weights = vggish_weights()
    change(weights)
    torch.save(weights, tmp_path / "wrong.pth")
    with pytest.raises(UserError, match=message):
        VGGish(tmp_path / "wrong.pth")


class Code:
    def __reduce__(self):
        return print, ("a weight file ran code",)


@pytest.mark.parametrize("content", ["truncated", "text", "empty", "code"])
def test_what_is_no_weight_file_is_refused(file, tmp_path, capsys, content):
    path = tmp_path / "broken.pth"
    if content == "code":
        torch.save({"features.0.weight": Code()}, path)
    else:
        whole = file.read_bytes()
        path.write_bytes({"truncated": whole[: len(whole) // 2], "text": b"<html>404</html>", "empty": b""}[content])
    with pytest.raises(UserError, match=r"not a whole file of weights; put vggish-10086976\.pth"):
        VGGish(path)
    assert "ran code" not in capsys.readouterr().out


def test_its_weights_stay_out_of_checkpoints(embedding, tmp_path):
    from bsa_lightning.evaluation.scoring import Scoring
    from bsa_lightning.evaluation.scoring_settings import ScoringSettings

    scoring = Scoring(ScoringSettings(ToyClips(4), embeddings=[embedding]))
    model = BoringModel()
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    trainer = Trainer(callbacks=[scoring], default_root_dir=tmp_path, **options)
    trainer.strategy.connect(model)
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    assert (tmp_path / "run.ckpt").stat().st_size < 50_000
    assert set(torch.load(tmp_path / "run.ckpt", weights_only=True)["state_dict"]) == set(model.state_dict())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_distances_are_those_of_frechet_audio_distance(monkeypatch):
    package = frechet_audio_distance(monkeypatch).FrechetAudioDistance
    generator = np.random.default_rng(0)
    mixing = generator.normal(size=(128, 128))
    sides = [generator.normal(size=(n, 128)) @ mixing + shift for n, shift in ((400, 0.0), (300, 0.5))]
    statistics = [package.calculate_embd_statistics(None, rows) for rows in sides]
    theirs = package.calculate_frechet_distance(None, *statistics[0], *statistics[1])
    (mean1, cov1), (mean2, cov2) = ([torch.from_numpy(part) for part in pair] for pair in statistics)
    ours = frechet_distance(mean1=mean1, cov1=cov1, mean2=mean2, cov2=cov2)
    assert ours.item() == pytest.approx(theirs, rel=1e-6)


@pytest.mark.skipif(not any(folder.is_dir() for folder in HUB), reason="torchvggish's code is not in the hub's folder")
def test_rows_are_those_of_frechet_audio_distances_vggish(embedding, monkeypatch):
    refuse_network(monkeypatch)
    extractor = object.__new__(frechet_audio_distance(monkeypatch).FrechetAudioDistance)
    extractor.model_name, extractor.verbose = "vggish", False
    folder = next(folder for folder in HUB if folder.is_dir())
    extractor.model = torch.hub.load(str(folder), "vggish", source="local", pretrained=False, postprocess=False)
    extractor.model.load_state_dict(vggish_weights(), strict=False)  # the PCA that it keeps is not used
    extractor.model.embeddings = extractor.model.embeddings[:-1]
    waves = sounds(48_000)
    theirs = extractor.get_embeddings(list(waves.numpy()), 16_000)
    assert_rows_close(embedding(waves).rows.flatten(0, 1), torch.from_numpy(theirs))
