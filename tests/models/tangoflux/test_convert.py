"""Conversion of TangoFlux: strict, exact in its counts, and answering every mistake."""

import json
import shutil

import pytest
import tangoflux_checkpoint
import torch
from safetensors.torch import load_file, save_file

from bsa_lightning.cli.convert import convert
from bsa_lightning.common.errors import UserError
from bsa_lightning.models.loading import load_parts
from bsa_lightning.models.tangoflux import checkpoint as layout
from bsa_lightning.models.tangoflux.convert import convert_tangoflux, is_tangoflux


@pytest.fixture(scope="module")
def original(tmp_path_factory, teacher_folder):
    """A checkpoint in the original layout, and the networks that it was written from."""
    folder = tmp_path_factory.mktemp("original") / "checkpoint"
    return folder, tangoflux_checkpoint.write_checkpoint(folder, text_folder=teacher_folder)


@pytest.fixture
def source(original, tmp_path):
    """A copy to damage."""
    return shutil.copytree(original[0], tmp_path / "source")


def test_every_weight_arrives_in_its_place(original, tmp_path, teacher_folder):
    convert_tangoflux(str(original[0]), tmp_path / "model")
    transformer, vae, projection = original[1]
    model = load_parts(tmp_path / "model")
    pairs = [
        (transformer, model.denoiser.transformer),
        (vae, model.codec.vae),
        (projection, model.conditioner.projection),
        (load_parts(teacher_folder).conditioner.encoder, model.conditioner.encoder),
    ]
    for written, arrived in pairs:
        weights = arrived.state_dict()
        assert weights.keys() == written.state_dict().keys()
        assert all(torch.equal(tensor, weights[name]) for name, tensor in written.state_dict().items())
    provenance = json.loads((tmp_path / "model/provenance.json").read_text())
    assert provenance["source"] == "checkpoint"
    assert provenance["licence"].startswith("non-commercial research only (Stability AI Community License")
    assert "Powered by Stability AI" in (tmp_path / "model/README.md").read_text()


def test_the_published_sizes():
    """Those of the published files, as their headers count them."""
    from diffusers import AutoencoderOobleck, FluxTransformer2DModel
    from transformers import T5Config, T5EncoderModel

    from bsa_lightning.models.conversion import FLAN_T5_LARGE
    from bsa_lightning.models.tangoflux.caption_projection import CaptionProjection

    with torch.device("meta"):
        networks = [
            FluxTransformer2DModel.from_config(layout.transformer_config(layout.PUBLISHED_CONFIG)),
            CaptionProjection(**layout.projection_config(layout.PUBLISHED_CONFIG, {"frequencies": torch.empty(128)})),
            T5EncoderModel(T5Config(**FLAN_T5_LARGE)),
        ]
        with pytest.warns(FutureWarning, match="weight_norm"):
            vae = AutoencoderOobleck()
    counts = [sum(parameter.numel() for parameter in network.parameters()) for network in networks]
    assert counts == [516_695_616, 1_049_600 + 264_320, 341_231_104]
    published = vae.state_dict()
    assert (len(published), sum(weight.numel() for weight in published.values())) == (365, 156_112_514)
    config = layout.vae_config(published, 44_100)
    assert {name: value for name, value in vae.config.items() if name in config} == config


def test_what_training_writes_converts_with_a_published_codec(original, source, tmp_path):
    (source / "tangoflux.safetensors").rename(source / "model_1.safetensors")
    (source / "vae.safetensors").unlink()
    with pytest.raises(UserError, match=r"no vae\.safetensors; .* --vae"):
        convert(str(source), tmp_path / "model")
    convert(str(source), tmp_path / "model", vae=str(original[0]))
    convert(str(original[0]), tmp_path / "published")
    for part in ("transformer", "vae"):
        ours, theirs = (
            tmp_path / name / part / "diffusion_pytorch_model.safetensors" for name in ("model", "published")
        )
        assert ours.read_bytes() == theirs.read_bytes()


def test_licence_files_and_named_licences_are_carried_along(source, tmp_path):
    for name in ("LICENSE.md", "NOTICE", "WavCaps_Licence.txt", "other.txt"):
        (source / name).write_text(name)
    (source / "README.md").write_text("---\nlicense: other\n---\n")
    convert_tangoflux(str(source), tmp_path / "a")
    assert {path.name for path in (tmp_path / "a").iterdir()} >= {"LICENSE.md", "NOTICE", "WavCaps_Licence.txt"}
    assert not (tmp_path / "a/other.txt").exists()
    assert "non-commercial research only" in json.loads((tmp_path / "a/provenance.json").read_text())["licence"]
    (source / "README.md").write_text("---\nlicense: cc-by-4.0\n---\n")
    convert_tangoflux(str(source), tmp_path / "b")
    assert json.loads((tmp_path / "b/provenance.json").read_text())["licence"] == "cc-by-4.0"
    convert_tangoflux(str(source), tmp_path / "c", licence="mine")
    assert json.loads((tmp_path / "c/provenance.json").read_text())["licence"] == "mine"


@pytest.mark.parametrize(
    ("src", "expected"),
    [
        ("declare-lab/TangoFlux", True),
        ("TangoFlux-base", True),
        ("tangoflux", True),
        ("someone/tangoflux-finetuned", True),
        ("declare-lab/tango2", False),
        ("tango", False),
        ("nowhere", False),
    ],
)
def test_the_command_tells_hub_ids_apart(src, expected):
    assert is_tangoflux(src) is expected


@pytest.mark.parametrize("kept", [["config.json"], ["tangoflux.safetensors"], ["vae.safetensors"]])
def test_the_command_tells_folders_apart(source, kept):
    for path in source.iterdir():
        if path.is_file() and path.name not in kept:
            path.unlink()
    assert is_tangoflux(str(source))
    (source / kept[0]).unlink()
    assert not is_tangoflux(str(source))


def _config(**changes):
    return lambda f: (f / "config.json").write_text(json.dumps(json.loads((f / "config.json").read_text()) | changes))


def _weights(file, edit):
    def damage(folder):
        weights = load_file(folder / file)
        edit(weights)
        save_file(weights, folder / file)

    return damage


MAIN, VAE = "tangoflux.safetensors", "vae.safetensors"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "config.json").unlink(), r"not a TangoFlux checkpoint: it has no config\.json"),
        (lambda f: (f / MAIN).unlink(), r"has no tangoflux\.safetensors, and no model_1"),
        (lambda f: (f / VAE).unlink(), r"no vae\.safetensors; .* --vae"),
        (lambda f: (f / VAE).write_bytes(b"half"), "is not a file of weights"),
        (lambda f: (f / "config.json").write_text("{"), "cannot be read as JSON"),
        (lambda f: shutil.rmtree(f / "words"), "text_encoder is words, but no such folder"),
        (lambda f: (f / "words/tokenizer.json").unlink(), "has no tokenizer"),
        (_config(num_layers=2), "transformer does not fit its configuration: 3. weights are missing"),
        (_config(num_layers="two"), "num_layers is two in .* whole number of at least 1"),
        (_config(attention_head_dim=64), "attention_head_dim is 64 in .* must be 128"),
        (_config(max_duration=0), "max_duration is 0 in .* above 0"),
        (_config(text_encoder_name=""), 'text_encoder_name is "" in'),
        (_config(in_channels=8), "transformer does not fit .* have another shape"),
        (_config(joint_attention_dim=32), "does not fit its configuration"),
        (
            _weights(MAIN, lambda w: w.pop("fc.0.bias")),
            "projection of text and duration does not fit .* 1 weights are missing",
        ),
        (_weights(MAIN, lambda w: w.pop("transformer.proj_out.bias")), "1 weights are missing.* proj_out.bias"),
        (
            _weights(MAIN, lambda w: w.update({"fc.1.bias": torch.zeros(1)})),
            r"holds fc\.1\.bias, which TangoFlux does not",
        ),
        (_weights(MAIN, lambda w: w.update({"unet.conv_in.weight": torch.zeros(1)})), "holds unet.conv_in.weight"),
        (_weights(MAIN, lambda w: w.update({"transformer.extra": torch.zeros(1)})), "1 are unexpected"),
        (
            _weights(MAIN, lambda w: w["duration_emebdder.time_positional_embedding.0.weights"].fill_(torch.nan)),
            "frequencies with values that are not finite",
        ),
        (
            _weights(MAIN, lambda w: w.pop("duration_emebdder.time_positional_embedding.0.weights")),
            "lacks the weight frequencies",
        ),
        (_weights(VAE, lambda w: w.pop("decoder.conv1.weight_v")), "lacks the weight decoder.conv1.weight_v"),
        (_weights(VAE, lambda w: w.pop("encoder.conv2.bias")), "codec does not fit .* encoder.conv2.bias"),
        (_weights(VAE, lambda w: w.update({"extra": torch.zeros(1)})), "codec does not fit .* 1 are unexpected"),
        (lambda f: (f / "vae_config.json").write_text('{"sampling_rate": "high"}'), "sampling_rate is high in"),
    ],
)
def test_a_damaged_checkpoint_is_answered_in_a_sentence_and_nothing_is_written(source, tmp_path, damage, message):
    damage(source)
    with pytest.raises(UserError, match=message):
        convert_tangoflux(str(source), tmp_path / "model")
    assert not (tmp_path / "model").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"source"}


def test_a_codec_of_other_latents_is_refused(source, tmp_path):
    """Its own shapes agree with one another, so that it could be read."""
    from diffusers import AutoencoderOobleck

    with pytest.warns(FutureWarning, match="weight_norm"):
        vae = AutoencoderOobleck(16, [2, 4], [1, 2], 6, 8)
    save_file(vae.state_dict(), source / VAE)
    with pytest.raises(UserError, match=r"in_channels is 4 in config\.json, but the codec's latents have 8"):
        convert_tangoflux(str(source), tmp_path / "model")
