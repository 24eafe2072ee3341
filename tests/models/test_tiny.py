"""The built-in teachers are small, and do what captions say."""

import numpy as np
import pytest
import torch

from bsa_lightning.data import synthesis
from bsa_lightning.generation.from_noise import generate, noise_of
from bsa_lightning.models.loading import load_parts
from bsa_lightning.models.registry import BUILT_IN, resolve_folder


@pytest.fixture(scope="module", params=BUILT_IN)
def sound(request):
    """Four clips of a caption, in the steps and guidance that the teacher is meant to be used with."""
    teacher = load_parts(request.param)
    teacher.denoiser.eval()

    def make(caption):
        return generate(
            denoiser=teacher.denoiser,
            codec=teacher.codec,
            conditioning=teacher.conditioner([caption] * 4),
            null=teacher.conditioner.null(),
            guidance_scale=teacher.sampling.scale(),
            num_steps=teacher.sampling.num_steps,
            noise=noise_of(range(4), seed=0, shape=teacher.codec.latent_shape),
        )

    return make


@pytest.mark.parametrize("name", BUILT_IN)
def test_they_are_small_enough_to_ship(name):
    size = sum(path.stat().st_size for path in resolve_folder(name).rglob("*") if path.is_file())
    assert size <= 9e6


def test_both_train_on_the_same_latents():
    first, second = (load_parts(name) for name in BUILT_IN)
    assert first.codec.fingerprint == second.codec.fingerprint
    assert first.conditioner.fingerprint == second.conditioner.fingerprint


@pytest.mark.parametrize("pitch", ["low", "high"])
def test_most_beeps_have_the_pitch_of_their_word(sound, pitch):
    """A semitone of slack at either end, for the mel bands of the codec."""
    spectrum = torch.fft.rfft(sound(f"A long {pitch} beep")).abs()
    frequencies = spectrum.argmax(1) * synthesis.SAMPLE_RATE / 40_960
    low, high = synthesis.PITCHES["beep"][pitch]
    right = (frequencies > low / 2 ** (1 / 12)) & (frequencies < high * 2 ** (1 / 12))
    assert right.sum() >= 3


def test_rain_is_bright_and_steady_and_a_knock_is_dull_and_short(sound):
    rain, knock = (sound(caption).numpy() for caption in ("Rain", "A knock"))
    centres = [spectral_centre(wave) for wave in (rain, knock)]
    assert (centres[0] > 2000).all()
    assert (centres[1] < 1000).all()
    lasting = [np.mean(np.abs(wave) > 0.05 * np.abs(wave).max(), axis=1).mean() for wave in (rain, knock)]
    assert lasting[0] > 3 * lasting[1]


def spectral_centre(wave):
    power = np.abs(np.fft.rfft(wave)) ** 2
    return power @ np.fft.rfftfreq(wave.shape[1], 1 / synthesis.SAMPLE_RATE) / power.sum(1)
