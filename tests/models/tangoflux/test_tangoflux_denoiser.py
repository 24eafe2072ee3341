"""The network of TangoFlux, on a small model of its layout."""

import json
import shutil

import pytest
import tangoflux_checkpoint
import torch
from tangoflux_checkpoint import LATENT_SHAPE
from tiny_model import CAPTIONS
from tolerances import FLOAT32, LOW_PRECISION

from bsa_lightning.models.conditioning import Conditioning
from bsa_lightning.models.loading import load_denoiser, load_parts, without_weights
from bsa_lightning.models.tangoflux import denoiser as module


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


@pytest.fixture(scope="module")
def z_t():
    return torch.randn(3, *LATENT_SHAPE, generator=torch.Generator().manual_seed(0))


T = torch.tensor([1.0, 0.4, 0.1], dtype=torch.float64)


@torch.no_grad()
def test_a_batch_is_its_clips_alone(teacher, text, z_t):
    null = teacher.denoiser.null_beside(teacher.conditioner.null(), text)
    for conditioning in (text, null):
        together = teacher.denoiser(z_t, T, conditioning)
        alone = [teacher.denoiser(z_t[i : i + 1], T[i : i + 1], conditioning.split()[i]) for i in range(3)]
        torch.testing.assert_close(together.x, torch.cat([one.x for one in alone]), **FLOAT32)
    garbage = torch.where(text.masks["states"][..., None], text.tensors["states"], 100.0)
    other = Conditioning({**text.tensors, "states": garbage}, text.masks)
    torch.testing.assert_close(teacher.denoiser(z_t, T, other).x, teacher.denoiser(z_t, T, text).x, **FLOAT32)


@torch.no_grad()
def test_pooled_text_and_duration_matter(teacher, text, z_t):
    x = teacher.denoiser(z_t, T, text).x
    for change in ("pooled", "states"):
        tensors = {name: tensor.clone() for name, tensor in text.tensors.items()}
        tensors[change][:, :1] += 1  # the first state is the duration's
        assert (teacher.denoiser(z_t, T, Conditioning(tensors, text.masks)).x - x).abs().max() > 1e-3


@pytest.fixture
def told(monkeypatch):
    """The times, and after them the scales, that were embedded."""
    values, embed = [], module._sinusoids

    def recorded(of):
        values.append(of)
        return embed(of)

    monkeypatch.setattr(module, "_sinusoids", recorded)
    return values


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("autocast", [False, True], ids=["", "autocast"])
def test_no_precision_rounds_the_time(folder, teacher, text, z_t, dtype, autocast):
    """bfloat16 knows no number between 0.6406 and 0.6445, 640 and 644; the embedding tells them apart."""
    denoiser, features = load_denoiser(folder, dtype=dtype), []
    embedder = denoiser.transformer.time_text_embed.timestep_embedder
    embedder.register_forward_pre_hook(lambda _module, inputs: features.append(inputs[0]))
    t = torch.tensor([0.641, 0.642, 0.643], dtype=torch.float64)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        found = denoiser(z_t, t, text)
    expected = module._sinusoids((1000 * t).float())
    assert features[0].dtype == dtype
    torch.testing.assert_close(features[0].float(), expected.to(dtype).float(), rtol=0, atol=0)
    assert (features[0][0] - features[0][1]).abs().max() > 0.5
    exact = teacher.denoiser(z_t, t, text)
    assert found.x.dtype == torch.float32
    assert (found.x - exact.x).norm() / exact.x.norm() < LOW_PRECISION


@torch.no_grad()
def test_the_embedding_is_that_of_diffusers(folder, teacher, text, z_t):
    from diffusers import FluxTransformer2DModel

    theirs, states = FluxTransformer2DModel.from_pretrained(folder / "transformer"), text.tensors["states"]
    visible = torch.nn.functional.pad(text.masks["states"], (0, LATENT_SHAPE[1]), value=True)
    u = theirs(
        z_t.transpose(1, 2),
        encoder_hidden_states=states,
        pooled_projections=text.tensors["pooled"],
        timestep=T.float(),
        img_ids=torch.arange(LATENT_SHAPE[1]).float()[:, None].expand(-1, 3),
        txt_ids=torch.zeros(states.shape[1], 3),
        joint_attention_kwargs={"attention_mask": visible[:, None, None]},
    ).sample.transpose(1, 2)
    prediction = teacher.denoiser(z_t, T, text)
    torch.testing.assert_close(prediction.eps - prediction.x, u, **FLOAT32)
    torch.testing.assert_close(
        (1 - T.float()[:, None, None]) * prediction.x + T.float()[:, None, None] * prediction.eps, z_t, **FLOAT32
    )


@torch.no_grad()
def test_a_new_guidance_input_changes_no_prediction_and_is_saved(folder, teacher, text, z_t, tmp_path, told):
    denoiser, scales = load_denoiser(folder), torch.tensor([1.0, 4.5, 9.25])
    denoiser.add_guidance_input()
    assert denoiser.takes_guidance
    exact = teacher.denoiser(z_t, T, text)
    for given in (None, scales):
        torch.testing.assert_close(denoiser(z_t, T, text, given).x, exact.x, **FLOAT32)
    assert torch.equal(told[-1], 1000 * scales)
    embedder = denoiser.transformer.time_text_embed.guidance_embedder
    embedder.linear_2.weight += 0.05
    changed = denoiser(z_t, T, text, scales).x
    assert (changed[1] - exact.x[1]).abs().max() > 1e-3
    torch.testing.assert_close(denoiser(z_t, T, text).x, exact.x, **FLOAT32)
    shutil.copytree(folder, tmp_path / "model")
    denoiser.save(tmp_path / "model")
    assert json.loads((tmp_path / "model/transformer/config.json").read_text())["guidance_embeds"] is True
    (tmp_path / "model/provenance.json").write_text(json.dumps({"guidance": "embedded"}))
    again = load_denoiser(tmp_path / "model")
    assert torch.equal(again(z_t, T, text, scales).x, changed)


def test_a_guidance_input_learns(folder, text, z_t):
    denoiser = load_denoiser(folder)
    denoiser.add_guidance_input()
    denoiser(z_t, T, text, torch.tensor([2.0, 3.0, 4.0])).x.square().mean().backward()
    assert denoiser.transformer.time_text_embed.guidance_embedder.linear_2.weight.grad.abs().max() > 0


def test_checkpointing_changes_no_gradient(folder, text, z_t):
    gradients = []
    for checkpointing in (False, True):
        denoiser = load_denoiser(folder).train()
        if checkpointing:
            denoiser.enable_gradient_checkpointing()
        assert denoiser.transformer.is_gradient_checkpointing is checkpointing
        denoiser(z_t, T, text).x.square().mean().backward()
        gradients.append(denoiser.transformer.x_embedder.weight.grad)
    assert gradients[0].abs().max() > 0
    torch.testing.assert_close(*gradients, **FLOAT32)


def test_blocks_hold_most_of_the_weights(teacher):
    blocks = sum(parameter.numel() for block in teacher.denoiser.blocks() for parameter in block.parameters())
    assert blocks > 0.8 * sum(parameter.numel() for parameter in teacher.denoiser.parameters())


def test_a_network_without_weights_has_the_shapes_of_the_real_one(folder, teacher):
    with without_weights():
        planned = load_denoiser(folder)
    assert [p.shape for p in planned.parameters()] == [p.shape for p in teacher.denoiser.parameters()]
    z_t, conditioning = teacher.denoiser.example_inputs(2)
    assert teacher.denoiser(z_t, torch.ones(2), conditioning).x.shape == (2, *LATENT_SHAPE)


@pytest.mark.parametrize("name", ["declare-lab/TangoFlux", "models/tangoflux", "TangoFlux-base"])
def test_the_published_network_is_planned_without_a_folder(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with without_weights():
        planned = load_denoiser(name, dtype=torch.bfloat16)
    assert sum(p.numel() for p in planned.parameters()) == 516_695_616
    assert planned.example_inputs(1)[0].shape == (1, 64, 645)
