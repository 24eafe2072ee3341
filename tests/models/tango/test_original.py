"""What the original code computed from a small checkpoint, met by every part of our conversion of it."""

from pathlib import Path

import pytest
import torch
from tolerances import ORIGINAL

from bsa_lightning.data.audio import normalise
from bsa_lightning.models.conditioning import Conditioning
from bsa_lightning.models.loading import load_parts
from bsa_lightning.models.tango.convert import convert_tango

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data" / "tango-tiny"


@pytest.fixture(scope="module")
def original_code():
    """What the original classes computed from the checkpoint in the shared folder, and our conversion of it."""
    if not SHARED.is_dir():
        pytest.skip(f"{SHARED} is not there: the original code's outputs cannot be compared")
    from safetensors.torch import load_file

    return load_file(SHARED / "expected.safetensors")


@pytest.fixture(scope="module")
def tango_tiny(original_code, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny") / "model"
    convert_tango(str(SHARED), folder)
    return load_parts(folder)


@torch.no_grad()
def test_codec_meets_the_original_code(original_code, tango_tiny):
    vae, vocoder = tango_tiny.codec.vae, tango_tiny.codec.vocoder
    log_mel = tango_tiny.codec.log_mel(original_code["wave"])
    torch.testing.assert_close(log_mel[:, None], original_code["log_mel"], **ORIGINAL)
    posterior = vae.encode(original_code["log_mel"]).latent_dist
    torch.testing.assert_close(posterior.mean, original_code["posterior_mean"], **ORIGINAL)
    torch.testing.assert_close(posterior.logvar, original_code["posterior_logvar"], **ORIGINAL)
    scaled = tango_tiny.codec.encode(original_code["wave"])
    torch.testing.assert_close(scaled.mean / 0.9227914214134216, original_code["posterior_mean"], **ORIGINAL)
    decoded = vae.decode(original_code["latent_unscaled"]).sample
    torch.testing.assert_close(decoded, original_code["decoded_log_mel"], **ORIGINAL)
    wave = vocoder(original_code["vocoder_log_mel"].transpose(1, 2))
    torch.testing.assert_close(wave, original_code["vocoder_wave"], **ORIGINAL)


def test_normalisation_meets_the_original_code(original_code):
    for raw, expected in zip(original_code["raw_wave"], original_code["wave"], strict=True):
        torch.testing.assert_close(normalise(raw), expected, **ORIGINAL)


@torch.no_grad()
def test_text_meets_the_original_code(original_code, tango_tiny):
    captions = ["A dog barks", "A man speaks while birds chirp in the background"]
    conditioning = tango_tiny.conditioner(captions)
    torch.testing.assert_close(conditioning.masks["states"], original_code["text_mask"].bool())
    torch.testing.assert_close(conditioning.tensors["states"], original_code["text_states"], **ORIGINAL)
    valid = original_code["null_mask"].bool()
    null = tango_tiny.conditioner.null().tensors["states"]
    torch.testing.assert_close(null.expand(2, -1, -1)[:, 0], original_code["null_states"][valid], **ORIGINAL)
    tokens = tango_tiny.conditioner.tokenizer([""] * 2, padding="max_length", max_length=33, return_tensors="pt")
    padded = tango_tiny.conditioner.encoder(**tokens).last_hidden_state
    torch.testing.assert_close(tokens["attention_mask"].bool(), valid)
    torch.testing.assert_close(padded, original_code["null_states"], **ORIGINAL)


@torch.no_grad()
@pytest.mark.parametrize("name", ["text", "null"])
def test_network_meets_the_original_code(original_code, tango_tiny, name):
    """The padded rows included: what is masked is there, and has no influence."""
    states, mask = original_code[f"{name}_states"], original_code[f"{name}_mask"].bool()
    expected = original_code["unet_output" if name == "text" else "unet_output_null"]
    z_t, timestep = original_code["unet_latent"], original_code["unet_timestep"]
    ours = tango_tiny.denoiser.unet(z_t, timestep, states, encoder_attention_mask=mask).sample
    torch.testing.assert_close(ours, expected, **ORIGINAL)
    t = (timestep + 1) / 1000
    prediction = tango_tiny.denoiser(z_t, t, Conditioning({"states": states}, {"states": mask}))
    alpha, sigma = (value[:, None, None, None] for value in tango_tiny.denoiser.schedule.alpha_sigma(t))
    torch.testing.assert_close(alpha * prediction.eps - sigma * prediction.x, expected, **ORIGINAL)
