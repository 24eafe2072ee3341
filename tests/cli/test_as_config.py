import functools
from pathlib import Path

import pytest
import torch
from jsonargparse import ArgumentParser

from bsa_lightning.cli import classes
from bsa_lightning.cli.as_config import as_config
from bsa_lightning.common.errors import UserError
from bsa_lightning.data.clips import Clips
from bsa_lightning.data.datamodule import Prepared
from bsa_lightning.data.soundscapes import Soundscapes
from bsa_lightning.diffusion.weighting import BSA, OwnWeighting, Uniform, Weighting
from bsa_lightning.distillation.guidance_modes import Baked, Embedded, GuidanceMode, Outside
from bsa_lightning.distillation.rounds import Plan
from bsa_lightning.evaluation.embeddings.base import Embedding
from bsa_lightning.evaluation.embeddings.log_mel import LogMelStatistics
from bsa_lightning.evaluation.embeddings.reading import AsAudioldmEval
from bsa_lightning.generation.samplers import DPMSolver, Sampler


def log_snr(snr):
    return torch.log1p(snr)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (BSA(gamma=4.0), Weighting),
        (Uniform(), Weighting),
        (OwnWeighting(log_snr), Weighting),
        (Baked(3.0), GuidanceMode),
        (Outside(2.0, caption_dropout=0.2), GuidanceMode),
        (Embedded(2.0, low=1.5, high=4.0), GuidanceMode),
        (Plan(8, 2, [3, 4], patience=2), Plan),
        (Prepared("folder", Soundscapes(4, seed=2), cache=Path("cache")), Prepared),
        (Soundscapes(6), Clips),
        (DPMSolver(), Sampler),
        (LogMelStatistics(AsAudioldmEval()), Embedding),
    ],
    ids=lambda value: getattr(value, "name", None) or type(value).__name__,
)
def test_what_an_object_is_written_as_makes_it_again(value, kind):
    classes.register()
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--value", type=kind)
    config = parser.parse_object({"value": as_config(value)})
    again = parser.instantiate(config).value
    assert type(again) is type(value)
    assert as_config(again) == as_config(value)


def test_values():
    assert as_config({"a": [1, (2.5, None)], "b": Path("x/y"), "c": True}) == {
        "a": [1, [2.5, None]],
        "b": "x/y",
        "c": True,
    }
    adam = functools.partial(torch.optim.Adam, lr=1e-3)
    assert as_config(adam) == {"class_path": "torch.optim.Adam", "init_args": {"lr": 1e-3}}
    assert as_config(torch.optim.SGD) == {"class_path": "torch.optim.SGD"}


def test_what_cannot_be_recorded_is_refused():
    class Forgetful:
        def __init__(self, number):
            pass

    with pytest.raises(UserError, match="Forgetful does not keep the argument number"):
        as_config(Forgetful(3))
