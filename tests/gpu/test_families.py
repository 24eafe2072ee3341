"""Each family's network, text encoder and codec, on the device as on the CPU."""

import pytest
import torch
from audioldm_models import write_audioldm, write_audioldm2
from stable_audio_3_model import write_model as write_stable_audio_3
from stable_audio_model import write_model as write_stable_audio
from tangoflux_checkpoint import write_model as write_tangoflux
from tiny_model import CAPTIONS
from tolerances import DEVICES, LOW_PRECISION

from bsa_lightning.generation.text_to_audio import TextToAudio
from bsa_lightning.models.loading import load_denoiser, load_parts
from bsa_lightning.models.mel_codec import GriffinLim
from bsa_lightning.models.predictor import predictor

FAMILIES = ("tango", "audioldm", "audioldm2", "stable-audio", "sa3", "tangoflux", "tiny")


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request, teacher_folder, tmp_path_factory):
    writers = {
        "audioldm": write_audioldm,
        "audioldm2": write_audioldm2,
        "stable-audio": lambda out: write_stable_audio(out, teacher_folder),
        "sa3": write_stable_audio_3,
        "tango": lambda _: teacher_folder,
        "tangoflux": lambda out: write_tangoflux(out, text_folder=teacher_folder),
        "tiny": lambda _: "tiny",
    }
    return writers[request.param](tmp_path_factory.mktemp(request.param) / "model")


def inputs(model):
    generator = torch.Generator().manual_seed(0)
    z_t = torch.randn(len(CAPTIONS), *model.codec.latent_shape, generator=generator)
    return z_t, torch.tensor([0.25, 0.5, 1.0]), model.conditioner(CAPTIONS)


def decoded(codec, z_t):
    """The waveform, or the spectrogram before Griffin-Lim, whose phases amplify rounding."""
    if isinstance(getattr(codec, "vocoder", None), GriffinLim):
        return codec.vae.decode(z_t).sample
    return codec.decode(z_t)


def test_text_and_sound_are_those_of_the_cpu(folder, device):
    model = load_parts(folder)
    z_t, _, told = inputs(model)
    with torch.no_grad():
        sound = torch.from_numpy(TextToAudio(folder)(CAPTIONS, num_steps=1).audios)
        here = {**told.tensors, "mean": model.codec.encode(sound).mean, "sound": decoded(model.codec, z_t)}
        conditioner, codec = model.conditioner.to(device), model.codec.to(device)
        there = {**conditioner(CAPTIONS).tensors, "mean": codec.encode(sound.to(device)).mean}
        there["sound"] = decoded(codec, z_t.to(device))
    for name, expected in here.items():
        torch.testing.assert_close(there[name].cpu(), expected, **DEVICES)


def test_predictions_and_gradients_are_those_of_the_cpu(folder, device):
    model = load_parts(folder)
    z_t, t, told = inputs(model)
    found = []
    for place in ("cpu", device):
        network = load_denoiser(folder).to(place)
        x = predictor(network, told.to(place))(z_t.to(place), t).x
        x.square().mean().backward()
        gradients = [p.grad.flatten().cpu() for p in network.parameters() if p.grad is not None]
        found.append((x.detach().cpu(), torch.cat(gradients)))
    for here, there in zip(*found, strict=True):
        assert here.abs().max() > 0
        torch.testing.assert_close(there, here, **DEVICES)


def test_a_network_in_bfloat16_and_one_under_autocast_are_near_float32(folder, device):
    model = load_parts(folder)
    z_t, t, told = inputs(model)
    with torch.no_grad():
        expected = predictor(model.denoiser, told)(z_t, t).x
        mixed = load_denoiser(folder).to(device)
        with torch.autocast(device.type, torch.bfloat16):
            outputs = [predictor(mixed, told.to(device))(z_t.to(device), t).x]
        if "stable-audio" not in str(folder):  # whose network would round its time
            rounded = load_denoiser(folder, dtype=torch.bfloat16).to(device)
            outputs.append(predictor(rounded, told.to(device))(z_t.to(device), t).x)
    for found in outputs:
        assert found.dtype is torch.float32
        error = (found.cpu() - expected).square().mean().sqrt() / expected.square().mean().sqrt()
        assert 0 < error < LOW_PRECISION
