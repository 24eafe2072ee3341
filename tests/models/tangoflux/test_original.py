"""What the original code computed from a small checkpoint, met by every part of our conversion of it."""

from pathlib import Path

import pytest
import torch
from tolerances import ORIGINAL

from bsa_lightning.diffusion.ddim import sample
from bsa_lightning.diffusion.process import add_noise
from bsa_lightning.models.conditioning import Conditioning
from bsa_lightning.models.loading import load_parts
from bsa_lightning.models.predictor import predictor
from bsa_lightning.models.tangoflux.conditioner import TangoFluxConditioner
from bsa_lightning.models.tangoflux.convert import convert_tangoflux

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data" / "tangoflux-tiny"
CAPTIONS = ["A dog barks", "A man speaks while birds chirp in the background"]


@pytest.fixture(scope="module")
def expected():
    """What the original classes computed from the checkpoint in the shared folder."""
    if not SHARED.is_dir():
        pytest.skip(f"{SHARED} is not there: the original code's outputs cannot be compared")
    from safetensors.torch import load_file

    return load_file(SHARED / "expected.safetensors")


@pytest.fixture(scope="module")
def folder(expected, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny") / "model"
    convert_tangoflux(str(SHARED), folder)
    return folder


@pytest.fixture(scope="module")
def tiny(folder):
    return load_parts(folder)


@pytest.fixture(scope="module")
def conditioners(expected, folder):
    """For the durations of both captions."""
    return [TangoFluxConditioner.from_folder(folder, seconds=float(seconds)) for seconds in expected["durations"]]


@pytest.fixture(scope="module")
def texts(conditioners):
    """The conditioning of both captions, each with its duration, in one batch."""
    return Conditioning.cat(
        [conditioner([caption]) for conditioner, caption in zip(conditioners, CAPTIONS, strict=True)]
    )


@pytest.fixture(scope="module")
def nulls(conditioners, texts, tiny):
    """The null of each caption, in one batch."""
    each = [tiny.denoiser.null_beside(conditioners[i].null(), texts[i : i + 1]) for i in range(2)]
    return Conditioning.cat(each)


def velocity(prediction):
    return (prediction.eps - prediction.x).transpose(1, 2)


def ours(expected, name):
    """Original latents are (frames, channels)."""
    return expected[name].transpose(-1, -2)


def test_durations_default_to_what_a_latent_holds(tiny):
    assert (tiny.codec.num_samples, tiny.codec.latent_shape) == (21 * 2048, (8, 21))
    assert tiny.conditioner.seconds == 21 * 2048 / 44_100


def test_tokens_and_states_of_a_padded_batch(expected, conditioners):
    ids, mask = conditioners[0].tokens(CAPTIONS, device="cpu")
    assert torch.equal(ids, expected["ids"].to(ids))
    text = conditioners[0](CAPTIONS)
    assert torch.equal(text.masks["states"][:, 1:], expected["mask"].bool())
    assert torch.equal(text.masks["states"][:, 1:], mask.bool())
    assert text.masks["states"][:, 0].all()
    torch.testing.assert_close(text.tensors["states"][:, 1:], expected["states"], **ORIGINAL)
    torch.testing.assert_close(text.tensors["pooled"], expected["pooled"], **ORIGINAL)


@pytest.mark.parametrize(("i", "k"), [(0, "a"), (1, "b")])
def test_each_caption_alone_with_its_null_and_duration(expected, conditioners, tiny, i, k):
    text = conditioners[i](CAPTIONS[i : i + 1])
    null = tiny.denoiser.null_beside(conditioners[i].null(), text)
    for found, name in ((text, f"{k}"), (null, f"{k}_null")):
        assert found.masks["states"].all()
        torch.testing.assert_close(found.tensors["states"][0, 1:], expected[f"{name}_states"], **ORIGINAL)
        torch.testing.assert_close(found.tensors["states"][0, :1], expected[f"{k}_duration_state"], **ORIGINAL)
        torch.testing.assert_close(found.tensors["pooled"][0], expected[f"{name}_pooled"], **ORIGINAL)
    torch.testing.assert_close(text.tensors["states"][0, :1], expected["duration_states"][i], **ORIGINAL)


def test_the_null_beside_the_longer_caption_is_padded_to_it(expected, nulls):
    torch.testing.assert_close(nulls.tensors["states"][1, 1:], expected["null_states"], **ORIGINAL)
    assert expected["null_mask"].sum() == 1  # of its states only one is a token's, and all are visible
    assert nulls.masks["states"].sum(dim=1).tolist() == [12, 45]


@torch.no_grad()
def test_a_batch_is_its_clips_alone(expected, tiny, texts, nulls):
    z_t, t = ours(expected, "z"), expected["sigma"].double()
    torch.testing.assert_close(velocity(tiny.denoiser(z_t, t, texts)), expected["u_text"], **ORIGINAL)
    torch.testing.assert_close(velocity(tiny.denoiser(z_t, t, nulls)), expected["u_null"], **ORIGINAL)
    assert (expected["u_text"] - expected["u_padded"]).abs().max() > 0.1


@torch.no_grad()
def test_the_original_batch_attends_to_its_padding(expected, tiny, texts, nulls):
    """All else is the same, training included."""
    states = torch.cat([texts.tensors["states"][:, 1:], texts.tensors["states"][:, :1]], dim=1)
    torch.testing.assert_close(states[1], expected["padded_encoder_states"][1], **ORIGINAL)

    def visible(states, pooled):
        return Conditioning.unpadded({"states": states, "pooled": pooled}, sequences=["states"])

    texts = visible(expected["padded_encoder_states"], texts.tensors["pooled"])
    null_states = expected["null_states"].expand(2, -1, -1)
    nulls = visible(torch.cat([null_states, expected["duration_states"]], dim=1), nulls.tensors["pooled"])
    z_t, t = ours(expected, "z"), expected["sigma"].double()
    torch.testing.assert_close(velocity(tiny.denoiser(z_t, t, texts)), expected["u_padded"], **ORIGINAL)
    torch.testing.assert_close(velocity(tiny.denoiser(z_t, t, nulls)), expected["u_null_padded"], **ORIGINAL)

    x, eps, t = expected["train_x"], expected["train_eps"], expected["train_sigma"].double()
    alpha, sigma = tiny.denoiser.schedule.alpha_sigma(t)
    z_t = add_noise(x=x, eps=eps, alpha=alpha, sigma=sigma)
    torch.testing.assert_close(z_t, expected["train_z"], **ORIGINAL)
    u = velocity(tiny.denoiser(z_t.transpose(1, 2), t, texts))
    torch.testing.assert_close(u, expected["train_u"], **ORIGINAL)
    torch.testing.assert_close((u - (eps - x)).square().mean(), expected["train_loss"][0], **ORIGINAL)


@pytest.mark.parametrize("num_steps", [4, 8])
def test_the_grid_and_what_the_network_is_told(expected, tiny, num_steps):
    grid = tiny.denoiser.schedule.grid(num_steps)
    sigma = tiny.denoiser.schedule.alpha_sigma(grid)[1]
    torch.testing.assert_close(sigma, expected[f"sigmas{num_steps}"], **ORIGINAL)
    torch.testing.assert_close(sigma[:-1], expected[f"timesteps{num_steps}"], **ORIGINAL)


@pytest.mark.parametrize("num_steps", [4, 8])
@pytest.mark.parametrize("kind", ["guided", "plain"])
@pytest.mark.parametrize(("i", "k"), [(0, "a"), (1, "b")])
def test_a_whole_run_meets_the_original_sampler(expected, tiny, conditioners, i, k, kind, num_steps):
    text, outputs, latents = conditioners[i](CAPTIONS[i : i + 1]), [], []
    denoise = predictor(
        tiny.denoiser, text, null=conditioners[i].null(), guidance_scale=4.5 if kind == "guided" else 1.0
    )

    def recorded(z_t, t):
        latents.append(z_t)
        return denoise(z_t, t)

    hook = tiny.denoiser.register_forward_hook(lambda _module, _inputs, output: outputs.append(velocity(output)))
    noise = ours(expected, "noise")[i : i + 1]
    x = sample(denoise=recorded, schedule=tiny.denoiser.schedule, noise=noise, num_steps=num_steps)
    hook.remove()
    run = torch.cat([*latents, x]).transpose(1, 2)
    torch.testing.assert_close(run, expected[f"{k}{num_steps}_{kind}_z"], **ORIGINAL)
    branches = ["u_text", "u_null"] if kind == "guided" else ["u"]
    for branch, name in enumerate(branches):
        found = torch.stack([output[branch] for output in outputs])
        torch.testing.assert_close(found, expected[f"{k}{num_steps}_{kind}_{name}"], **ORIGINAL)


@torch.no_grad()
def test_codec_meets_the_original_code(expected, tiny):
    decoded = tiny.codec.decode(ours(expected, "b4_guided_z")[-1:])[0]
    torch.testing.assert_close(decoded, expected["b4_decoded"], **ORIGINAL)
    wave = expected["wave"]
    posterior = tiny.codec.vae.encode(wave).latent_dist
    torch.testing.assert_close(posterior.mean, expected["posterior_mean"], **ORIGINAL)
    torch.testing.assert_close(posterior.std, expected["posterior_std"], **ORIGINAL)
