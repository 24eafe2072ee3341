"""Compiled networks: the same students, from few graphs, whatever a ladder does to the weights."""

import functools
import shutil

import pytest
import torch
from ladder import StopAt, Watch, data_of, module_of, trainer_of
from tolerances import FLOAT32
from torch._dynamo.utils import counters

from bsa_lightning.distillation.guidance_modes import Baked, Embedded
from bsa_lightning.distillation.rounds import Plan
from bsa_lightning.models.base import Denoiser
from bsa_lightning.models.conditioning import Conditioning
from bsa_lightning.training.latent_module import NetworkOptions

ROUNDS = Plan(8, 1, 3)
needs_compiler = pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs g++ here, which is missing")
VALIDATED = {"limit_val_batches": 1.0, "val_check_interval": 4, "check_val_every_n_epoch": None}


@pytest.fixture(autouse=True)
def traced(monkeypatch, request, tmp_path):
    """Graphs are run as they were traced, unless a test asks for code."""
    torch._dynamo.reset()
    counters.clear()
    compile_network, backend = Denoiser.compile_network, "eager"
    if request.node.get_closest_marker("skipif") is not None:  # where a compiler is needed
        backend = "inductor"
        # A compiler that is killed leaves half a library in its cache, on which the next one stumbles.
        monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    monkeypatch.setattr(Denoiser, "compile_network", functools.partialmethod(compile_network, backend=backend))


def ladder(run, teacher_folder, latents_folder, *callbacks, settings=None, ckpt_path=None, **trainer):
    """Under plain gradient descent, so that rounding stays rounding."""
    optimizer = functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9)
    module = module_of(teacher_folder, **{"plan": ROUNDS, "optimizer": optimizer} | settings)
    data = data_of(latents_folder)
    trainer_of(run, *callbacks, **trainer).fit(module, data, ckpt_path=ckpt_path, weights_only=True)
    return module


def weights(module):
    return torch.cat([parameter.detach().flatten() for parameter in module.finished_student.parameters()])


@pytest.mark.parametrize(
    ("guidance", "graphs"),
    [
        # The teacher of the first round is guided, on twice the batch.
        (Baked(2.0), [2] * 3 + [3] * 6),
        # The teacher of the first round has no input for the scale yet.
        pytest.param(Embedded(2.0), [2] * 3 + [3] * 6, marks=pytest.mark.slow),
    ],
    ids=["baked", "embedded"],
)
def test_promotions_and_lengths_of_captions_cost_no_graph(guidance, graphs, teacher_folder, latents_folder, tmp_path):
    seen, lengths = [], set()

    def look(trainer, module, batch):
        seen.append(counters["stats"]["unique_graphs"])
        lengths.add(batch.conditioning.tensors["states"].shape[1])

    settings = {"guidance": guidance, "ema_decay": 0.5}
    compiled = ladder(
        tmp_path / "a",
        teacher_folder,
        latents_folder,
        Watch(look),
        settings=settings | {"networks": NetworkOptions(compile=True)},
    )
    assert len(lengths) > 1
    assert seen == graphs
    assert not counters["graph_break"]
    plain = ladder(tmp_path / "b", teacher_folder, latents_folder, settings=settings)
    torch.testing.assert_close(weights(compiled), weights(plain), **FLOAT32)


@pytest.mark.slow
@needs_compiler
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated")  # torch's own compiler imports it
@pytest.mark.timeout(600)
def test_a_resumed_ladder_is_compiled_as_well(teacher_folder, latents_folder, tmp_path):
    """Its teacher is another one than that of the start, loaded from the student's folder."""
    settings = {"ema_decay": 0.5, "networks": NetworkOptions(compile=True)}
    last = tmp_path / "checkpoints" / "last.ckpt"
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        ladder(tmp_path, teacher_folder, latents_folder, StopAt(4), settings=settings)
    module = ladder(tmp_path, teacher_folder, latents_folder, settings=settings, ckpt_path=last)
    assert all(network.is_compiled for network in module.networks)
    names = torch.load(last, weights_only=True)["state_dict"]
    assert not any("_orig_mod" in name for name in names)


def test_padding_changes_nothing_but_the_length():
    states, mask = torch.randn(2, 5, 3), torch.tensor([[True] * 5, [True] * 2 + [False] * 3])
    conditioning = Conditioning({"states": states, "whole": torch.ones(2, 7)}, {"states": mask})
    padded = conditioning.padded(8)
    assert padded.tensors["states"].shape == (2, 8, 3)
    assert padded.tensors["whole"].shape == (2, 7)
    assert padded.masks["states"].sum(1).tolist() == [5, 2]
    assert torch.equal(padded.tensors["states"][:, :5], states)
    assert conditioning.padded(5).tensors["states"].shape == (2, 5, 3)


@pytest.mark.slow
@needs_compiler
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated")  # torch's own compiler imports it
@pytest.mark.timeout(900)
def test_students_of_generated_code_are_the_same(teacher_folder, latents_folder, tmp_path):
    settings = {"plan": Plan(8, 2, 4), "ema_decay": 0.5}
    compiled, plain = (
        ladder(
            tmp_path / str(on),
            teacher_folder,
            latents_folder,
            settings=settings | {"networks": NetworkOptions(compile=on)},
            **VALIDATED,
        )
        for on in (True, False)
    )
    assert counters["stats"]["unique_graphs"] <= 5
    torch.testing.assert_close(weights(compiled), weights(plain), **FLOAT32)
