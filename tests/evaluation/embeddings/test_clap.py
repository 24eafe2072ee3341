import json
import shutil

import pytest
import torch
from embedding_weights import CLAP_TEXTS as TEXTS
from embedding_weights import refuse_network, write_clap
from safetensors.torch import load_file, save_file
from tolerances import FLOAT32

from bsa_lightning.common.errors import UserError
from bsa_lightning.evaluation.embeddings.clap import CLAP


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_clap(tmp_path_factory.mktemp("clap"))


@pytest.fixture(scope="module")
def embedding(folder):
    return CLAP(str(folder))


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def waves(seconds):
    """Noise that comes and goes, at 48 kHz."""
    t = torch.arange(int(seconds * 48_000)) / 48_000
    noise = 0.3 * torch.randn(2, len(t), generator=torch.Generator().manual_seed(0))
    return noise * torch.stack([t % 0.5 < 0.1, t % 3 < 2])


@pytest.mark.parametrize("seconds", [0.3, 4, 10])
def test_audio_rows_are_those_of_transformers(embedding, seconds):
    clips = waves(seconds)
    inputs = embedding.extractor(list(clips.numpy()), sampling_rate=48_000, return_tensors="pt")
    with torch.no_grad():
        theirs = embedding.model.get_audio_features(input_features=inputs["input_features"].float()).pooler_output
    features = embedding(clips)
    assert features.rows.shape == (2, 1, 512)
    assert features.logits is None
    torch.testing.assert_close(features.rows[:, 0], theirs, **FLOAT32)
    torch.testing.assert_close(features.rows.norm(dim=-1), torch.ones(2, 1), **FLOAT32)
    assert not torch.allclose(features.rows[0], features.rows[1], atol=1e-3)


def test_text_rows_are_those_of_transformers(embedding):
    tokens = embedding.tokenizer(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        theirs = embedding.model.get_text_features(**tokens).pooler_output
    rows = embedding.text(TEXTS)
    assert rows.shape == (3, 512)
    torch.testing.assert_close(rows, theirs, **FLOAT32)
    assert torch.cdist(rows, rows)[0, 1:].min() > 1e-2


def test_a_caption_that_is_too_long_is_cut(embedding):
    torch.testing.assert_close(embedding.text(["a dog" * 50]), embedding.text(["a dog" * 8]), **FLOAT32)


@pytest.mark.parametrize("fusion", [False, True], ids=["unfused", "fused"])
def test_a_long_clip_is_its_first_ten_seconds_every_time(tmp_path, fusion):
    embedding = CLAP(str(write_clap(tmp_path / "model", fusion=fusion)))
    clips = waves(12)
    first, second, cut = embedding(clips).rows, embedding(clips).rows, embedding(clips[:, :480_000]).rows
    assert torch.equal(first, second)
    assert torch.equal(first, cut)
    assert not torch.allclose(first, embedding(clips[:, 96_000:]).rows, atol=1e-3)


def test_it_is_frozen_and_touches_no_network(folder, monkeypatch):
    refuse_network(monkeypatch)
    embedding = CLAP(str(folder)).train()
    assert (embedding.name, embedding.metric, embedding.sample_rate, embedding.num_features) == (
        "clap",
        "fd_clap",
        48_000,
        512,
    )
    assert not any(module.training for module in embedding.modules())
    assert not any(weight.requires_grad for weight in embedding.parameters())


def test_fingerprint_is_of_the_content_not_of_the_place(embedding, copy):
    assert CLAP(str(copy)).fingerprint == embedding.fingerprint
    weights = load_file(copy / "model.safetensors")
    save_file({**weights, "logit_scale_a": weights["logit_scale_a"] + 1}, copy / "model.safetensors", {"format": "pt"})
    assert CLAP(str(copy)).fingerprint != embedding.fingerprint


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "preprocessor_config.json"])
def test_a_broken_folder_is_refused(copy, name):
    (copy / name).write_bytes((copy / name).read_bytes()[:50])
    with pytest.raises(
        UserError, match=r"not a complete CLAP in transformers' layout; name a folder with config\.json, model"
    ):
        CLAP(str(copy))


def test_weights_that_lack_a_part_are_refused(copy):
    weights = load_file(copy / "model.safetensors")
    del weights["audio_projection.linear1.weight"]
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"model\.safetensors lacks audio_projection\.linear1\.weight"):
        CLAP(str(copy))


def test_tables_of_positions_may_lack(embedding, copy):
    weights = load_file(copy / "model.safetensors")
    tables = [name for name, tensor in weights.items() if not tensor.is_floating_point()]
    assert "text_model.embeddings.position_ids" in tables
    rest = {name: tensor for name, tensor in weights.items() if name not in tables}
    save_file(rest, copy / "model.safetensors", {"format": "pt"})
    lighter = CLAP(str(copy))
    torch.testing.assert_close(lighter.text(TEXTS), embedding.text(TEXTS), rtol=0, atol=0)
    torch.testing.assert_close(lighter(waves(1)).rows, embedding(waves(1)).rows, rtol=0, atol=0)


@pytest.mark.parametrize("how", ["gone", "another"])
def test_a_tokenizer_without_words_is_refused(copy, how):
    if how == "gone":
        for path in copy.glob("*token*"):
            path.unlink()
    else:
        content = json.loads((copy / "tokenizer.json").read_text())
        content["model"]["vocab"] = {token: i for token, i in content["model"]["vocab"].items() if i < 5}
        (copy / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"has 5 tokens where its text encoder has \d+; put the tokenizer"):
        CLAP(str(copy))


@pytest.mark.parametrize(
    ("checkpoint", "message"),
    [
        ("laion/clap-htsat-unfused", r"hf download laion/clap-htsat-unfused config\.json model\.safetensors"),
        ("no/such/folder", "no such folder exists; name a folder"),
        ("./folder", "no such folder exists; name a folder"),
    ],
)
def test_a_checkpoint_that_cannot_be_had_is_refused(tmp_path, monkeypatch, checkpoint, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(UserError, match=message):
        CLAP(checkpoint)
