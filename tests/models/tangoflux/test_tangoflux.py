"""The text side, the codec and the folder of TangoFlux, on a small model of its layout."""

import copy
import json
import shutil

import pytest
import tangoflux_checkpoint
import torch
from tangoflux_checkpoint import LATENT_SHAPE, NUM_SAMPLES, WIDTH
from tiny_model import CAPTIONS
from tolerances import FLOAT32

from bsa_lightning.common.errors import UserError
from bsa_lightning.diffusion.flow import FlowSchedule
from bsa_lightning.models.loading import load_codec, load_conditioner, load_parts


@pytest.fixture(scope="module")
def folder(tmp_path_factory, teacher_folder):
    """Nobody writes to it."""
    return tangoflux_checkpoint.write_model(tmp_path_factory.mktemp("tangoflux"), text_folder=teacher_folder)


@pytest.fixture(scope="module")
def teacher(folder):
    return load_parts(folder)


@pytest.fixture(scope="module")
def text(teacher):
    return teacher.conditioner(CAPTIONS)


def test_shapes_and_defaults(teacher):
    assert teacher.codec.latent_shape == LATENT_SHAPE
    assert (teacher.codec.num_samples, teacher.codec.sample_rate, teacher.codec.num_channels) == (
        NUM_SAMPLES,
        44_100,
        2,
    )
    assert (teacher.sampling.num_steps, teacher.sampling.scale()) == (50, 4.5)
    assert isinstance(teacher.denoiser.schedule, FlowSchedule)
    assert not teacher.denoiser.takes_guidance


def test_a_caption_alone_is_its_row_of_a_batch(teacher, text):
    assert text.masks["states"].sum(dim=1).tolist() == [5, 3, 8]  # the duration, the words, the end
    for caption, row in zip(CAPTIONS, text.split(), strict=True):
        alone = teacher.conditioner([caption])
        torch.testing.assert_close(alone.tensors, row.tensors, **FLOAT32)
        assert torch.equal(alone.masks["states"], row.masks["states"])


def test_the_null_is_the_empty_caption_with_all_of_its_padding(teacher):
    null = teacher.conditioner.null()
    assert null.tensors["states"].shape == (1, 1 + 512, WIDTH)
    assert null.masks["states"].all()
    empty = teacher.conditioner([""])
    assert empty.tensors["states"].shape[1] == 2
    torch.testing.assert_close(null.tensors["states"][:, :2], empty.tensors["states"], **FLOAT32)
    torch.testing.assert_close(null.tensors["pooled"], empty.tensors["pooled"], **FLOAT32)


def test_each_clip_gets_as_much_of_the_null_as_its_caption_has(teacher, text):
    null = teacher.conditioner.null()
    beside = teacher.denoiser.null_beside(null, text)
    assert torch.equal(beside.masks["states"], text.masks["states"])
    assert len(beside.split()) == 3
    for row, clip in zip(beside.split(), text.split(), strict=True):
        length = clip.tensors["states"].shape[1]
        assert torch.equal(row.tensors["states"], null.tensors["states"][:, :length])
        assert torch.equal(row.tensors["pooled"], null.tensors["pooled"])
    padded = text.padded(16)  # a stored batch, whose padding is wherever
    assert torch.equal(teacher.denoiser.null_beside(null, padded).masks["states"], padded.masks["states"])


def test_padding_on_the_left_changes_nothing(teacher, text):
    tokenizer = copy.deepcopy(teacher.conditioner.tokenizer)
    tokenizer.padding_side = "left"
    parts = teacher.conditioner
    other = type(parts)(parts.encoder, tokenizer, parts.projection, seconds=parts.seconds, fingerprint="")
    assert torch.equal(other(CAPTIONS).tensors["states"], text.tensors["states"])


def test_codec_is_the_librarys_on_whole_latents(teacher):
    waveform = 0.3 * torch.randn(2, 2, NUM_SAMPLES)
    with torch.no_grad():
        theirs = teacher.codec.vae.encode(waveform).latent_dist
    ours = teacher.codec.encode(waveform)
    assert torch.equal(ours.mean, theirs.mean)
    assert torch.equal(ours.std, theirs.std)
    assert torch.equal(teacher.codec.decode(theirs.mean), teacher.codec.vae.decode(theirs.mean).sample.clamp(-1, 1))


@pytest.fixture
def short(folder, tmp_path):
    """The same model for clips of half the latent's length."""
    shutil.copytree(folder, tmp_path / "short")
    known = json.loads((tmp_path / "short/provenance.json").read_text())
    (tmp_path / "short/provenance.json").write_text(json.dumps(known | {"seconds": NUM_SAMPLES / 2 / 44_100}))
    return tmp_path / "short"


def test_shorter_clips_are_padded_cut_and_told_to_the_network(short, teacher, text):
    codec, conditioner = load_codec(short), load_conditioner(short)
    waveform = 0.3 * torch.randn(1, 2, NUM_SAMPLES // 2)
    assert (codec.num_samples, codec.latent_shape) == (NUM_SAMPLES // 2, LATENT_SHAPE)
    whole = torch.cat([waveform, torch.zeros_like(waveform)], dim=-1)
    assert torch.equal(codec.encode(waveform).mean, teacher.codec.encode(whole).mean)
    x = torch.randn(1, *LATENT_SHAPE)
    assert torch.equal(codec.decode(x), teacher.codec.decode(x)[..., : NUM_SAMPLES // 2])
    states = conditioner(CAPTIONS).tensors["states"]
    assert (states[:, 0] - text.tensors["states"][:, 0]).abs().max() > 1e-2
    assert torch.equal(states[:, 1:], text.tensors["states"][:, 1:])
    assert torch.equal(conditioner.null().tensors["states"][0, 0], states[0, 0])
    assert codec.fingerprint != teacher.codec.fingerprint
    assert conditioner.fingerprint != teacher.conditioner.fingerprint


def test_the_duration_is_the_published_formula(teacher):
    projection, seconds = teacher.conditioner.projection, teacher.conditioner.seconds
    share = seconds / 0.003
    angles = 2 * torch.pi * share * projection.frequencies.detach()
    features = torch.cat([torch.tensor([share]), angles.sin(), angles.cos()])
    expected = projection.duration.weight @ features + projection.duration.bias
    torch.testing.assert_close(teacher.conditioner(["rain"]).tensors["states"][0, 0], expected.detach(), **FLOAT32)
    assert torch.equal(projection._features(1.0), projection._features(0.003))  # longer ones are taken for the longest


@pytest.mark.parametrize(
    ("path", "change", "message"),
    [
        ("scheduler/scheduler_config.json", {"shift": 3.0}, r"shift is 3\.0 in"),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": 1}, "num_train_timesteps is 1 in"),
        ("scheduler/scheduler_config.json", {"_class_name": "DDIMScheduler"}, 'is "DDIMScheduler" in'),
        ("transformer/config.json", {"_sample_size": 0}, "_sample_size is 0 in .* the frames of a latent"),
        ("transformer/config.json", {"_class_name": "UNet2DConditionModel"}, '_class_name is "UNet2DConditionModel"'),
        ("projection/config.json", {"width": 8}, "has, in another shape"),
    ],
)
def test_a_changed_folder_is_refused_in_a_sentence(folder, tmp_path, path, change, message):
    shutil.copytree(folder, tmp_path / "other")
    (tmp_path / "other/provenance.json").write_text("{}")
    config = json.loads((tmp_path / "other" / path).read_text())
    (tmp_path / "other" / path).write_text(json.dumps(config | change))
    with pytest.raises(UserError, match=message):
        load_parts(tmp_path / "other")


@pytest.mark.parametrize("missing", ["transformer/config.json", "scheduler/scheduler_config.json", "projection", "vae"])
def test_an_incomplete_folder_is_refused_in_a_sentence(folder, tmp_path, missing):
    shutil.copytree(folder, tmp_path / "part")
    (tmp_path / "part" / missing).rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"not a .*model folder"):
        load_parts(tmp_path / "part")
