import math

import pytest
import torch

from bsa_lightning.models.mel import GriffinLim, LogMel


def test_silence_is_the_floor_and_frames_are_ten_milliseconds():
    log_mel = LogMel()(torch.zeros(1, 16_000))
    assert log_mel.shape == (1, 100, 64)
    assert log_mel.unique().tolist() == pytest.approx([math.log(1e-5)], rel=1e-6)


@pytest.mark.parametrize("frequency", [300, 1000, 3000])
def test_griffin_lim_gives_the_tone_back(frequency):
    wave = 0.4 * torch.sin(2 * torch.pi * frequency * torch.arange(8000) / 16_000)[None]
    again = GriffinLim()(LogMel()(wave))
    assert again.shape == wave.shape
    spectrum = torch.fft.rfft(again[0]).abs()
    assert float(spectrum.argmax()) * 2 == pytest.approx(frequency, rel=0.08)
    # A band is wide against a tone, so neighbouring bins of the guess cancel: some level is lost, most at the top.
    assert 0.4 < float(again.std() / wave.std()) < 1.1
