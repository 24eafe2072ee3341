"""What the modules share, piece by piece."""

import functools
from dataclasses import FrozenInstanceError
from types import SimpleNamespace

import pytest
import torch
from ladder import Watch, data_of, module_of, trainer_of
from lightning.pytorch import Callback, Trainer
from torch import nn

from bsa_lightning.common.errors import UserError
from bsa_lightning.distillation.rounds import Plan
from bsa_lightning.training import latent_module
from bsa_lightning.training.latent_module import NetworkOptions, check_training


@pytest.fixture
def module(teacher_folder):
    module = module_of(teacher_folder, ema_decay=0.5)
    module.trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    return module


def weights(network):
    return torch.cat([parameter.detach().flatten().clone() for parameter in network.parameters()])


def test_networks_are_held_in_full_and_plainly_where_nothing_else_is_said():
    options = NetworkOptions()
    assert (options.dtype, options.gradient_checkpointing, options.compile) == (torch.float32, False, False)
    assert NetworkOptions("bfloat16").dtype == torch.bfloat16
    with pytest.raises(UserError, match="teacher_dtype is 'float16'"):
        NetworkOptions("float16")
    with pytest.raises(FrozenInstanceError):
        options.compile = True


def test_gradient_checkpointing_is_asked_of_the_student_alone(teacher_folder):
    for asked in (False, True):
        module = module_of(teacher_folder, networks=NetworkOptions(gradient_checkpointing=asked))
        assert module.student.network.is_gradient_checkpointing is asked
        assert module.teacher.network.is_gradient_checkpointing is False


def test_the_average_moves_with_an_update_that_is_one(module):
    """One without any gradient, as of a batch that is skipped, is none; no gradient is kept after it."""
    optimizer = torch.optim.SGD(module.student.parameters(), lr=0.1)
    first = next(module.student.parameters())
    first.data.add_(1.0)
    before = weights(module.ema.average)
    module.optimizer_step(0, 0, optimizer, lambda: None)
    assert torch.equal(weights(module.ema.average), before)

    def closure():
        first.grad = torch.ones_like(first)

    student = weights(module.student)
    module.optimizer_step(0, 0, optimizer, closure)
    moved = weights(module.student)
    assert float((moved - student).abs().max()) == pytest.approx(0.1, rel=1e-5)
    torch.testing.assert_close(weights(module.ema.average), (before + moved) / 2)
    assert first.grad is None
    plugin = module.trainer.strategy.precision_plugin
    average = weights(module.ema.average)
    for scales, moves in (([4.0, 2.0], False), ([4.0, 4.0], True), ([4.0, 8.0], True)):
        plugin.scaler = SimpleNamespace(get_scale=functools.partial(scales.pop, 0))
        module.optimizer_step(0, 0, optimizer, closure)
        assert torch.equal(weights(module.ema.average), average) is not moves
        average = weights(module.ema.average)
    del plugin.scaler
    module.ema = None
    module.optimizer_step(0, 0, optimizer, closure)
    assert not torch.equal(weights(module.student), moved)


@pytest.mark.parametrize("compiled", [False, True])
def test_each_network_is_set_up_once(module, compiled, monkeypatch):
    told = []
    monkeypatch.setattr(latent_module, "shard", lambda network, strategy: told.append(("shard", network, strategy)))
    monkeypatch.setattr(type(module.student), "compile_network", lambda network: told.append(("compile", network)))
    module.compiled = compiled
    for ema, networks in ((module.ema, 3), (None, 2)):
        module.ema = ema
        told.clear()
        module.configure_model()
        assert [item[1] for item in told if item[0] == "shard"] == module.networks[:networks]
        assert [item[1] for item in told if item[0] == "compile"] == (module.networks[:networks] if compiled else [])
        assert all(item[2] is module.trainer.strategy for item in told if item[0] == "shard")
    assert module.set_up(module.student) is module.student


class Network(nn.Module):
    def __init__(self, *values):
        super().__init__()
        self.parts = nn.ParameterList(torch.tensor(value, dtype=torch.float64) for value in values)
        self.register_buffer("count", torch.tensor(3))


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
def test_a_network_that_moved_by_less_than_a_billionth_of_its_length_is_refused(module, size):
    start = [[3.0 * size, -4.0 * size], [-12.0 * size]]  # of length 13, from parts of both signs

    def moved(share):
        return Network([value * (1 + share) for value in start[0]], [value * (1 - share) for value in start[1]])

    for share in (0.0, 0.9e-9):
        with pytest.raises(UserError, match="training has changed no weight"):
            module.refuse_unchanged(moved(share), Network(*start))
    module.refuse_unchanged(moved(1.1e-9), Network(*start))
    module.refuse_unchanged(moved(0.0), None)


def test_a_network_of_zeros_that_has_not_moved_is_refused(module):
    with pytest.raises(UserError, match="training has changed no weight"):
        module.refuse_unchanged(Network([0.0, 0.0]), Network([0.0, 0.0]))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_the_first_tensor_that_is_not_finite_is_named(module, value):
    module.refuse_broken(Network([1.0, 0.0], [2.0]))
    module.refuse_broken(None)
    with pytest.raises(UserError, match=r"not finite, such as parts\.1, so"):
        module.refuse_broken(Network([1.0], [2.0, value], [value]))


def test_numbers_of_an_optimizer_are_checked_each(caplog):
    def with_(**settings):
        def make(parameters):
            optimizer = torch.optim.Adam(parameters, lr=1e-3)
            optimizer.param_groups[0].update(settings)
            return optimizer

        return make

    for good in ({}, {"lr": torch.tensor(1e-3)}, {"amsgrad": True}, {"betas": (0.5, 0.9)}, {"lr": 2}):
        check_training(with_(**good), seed=0, ema_decay=None)
    for bad, text in (
        ({"betas": (0.9, float("inf"))}, "betas of optimizer is inf"),
        ({"weight_decay": float("nan")}, "weight_decay of optimizer is nan"),
        ({"lr": 0.0}, "the learning rate of optimizer is 0"),
    ):
        with pytest.raises(UserError, match=text):
            check_training(with_(**bad), seed=0, ema_decay=None)
    with pytest.raises(UserError, match="seed is -1"):
        check_training(with_(), seed=-1, ema_decay=None)


@pytest.mark.parametrize(
    ("precision", "clip", "fused", "text"),
    [
        ("bf16-mixed", 1.0, True, "Lightning cannot clip gradients, but trainer.gradient_clip_val is 1"),
        ("16-mixed", None, True, "optimizer is fused and trainer.precision 16-mixed, with which bad updates are not"),
        ("bf16-mixed", None, True, None),
        ("bf16-mixed", 1.0, False, None),
        ("32-true", 1.0, True, None),
    ],
)
def test_a_fused_optimizer_goes_with_what_lightning_can_do(
    teacher_folder, latents_folder, precision, clip, fused, text
):
    module = module_of(teacher_folder, optimizer=functools.partial(torch.optim.Adam, lr=1e-3, fused=fused))
    module.trainer = SimpleNamespace(precision=precision, gradient_clip_val=clip, datamodule=data_of(latents_folder))
    module.trainer.datamodule.setup("fit")
    if text is None:
        module.check_data()
    else:
        with pytest.raises(UserError, match=text):
            module.check_data()


def test_a_callback_that_stops_the_fit_stops_it_after_an_update(teacher_folder, latents_folder, tmp_path):
    """As Lightning's ``Timer`` does, which asks again after each batch, and one that asks once."""

    class Stop(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if batch_idx == 3:  # the first of three batches of the second update
                trainer.should_stop = True

    module = module_of(teacher_folder, plan=Plan(8, 4, 9))
    trainer = trainer_of(tmp_path, Stop(), accumulate_grad_batches=3)
    trainer.fit(module, data_of(latents_folder))
    assert (trainer.global_step, module.has_pending_gradients) == (2, False)
    assert trainer.fit_loop.epoch_loop.batch_progress.total.processed == 6


def test_both_modules_check_their_optimizer_before_they_load_a_network(tmp_path):
    with pytest.raises(UserError, match="optimizer cannot be made"):
        module_of(tmp_path / "nowhere", optimizer=functools.partial(torch.optim.SGD, lr=-1.0))
    with pytest.raises(UserError, match="optimizer cannot be made"):
        module_of(tmp_path / "nowhere", optimizer=functools.partial(torch.optim.Adam, fused=True, foreach=True))


@pytest.mark.parametrize("other", [None, "codec", "conditioner"])
def test_latents_of_another_codec_or_text_encoder_are_refused(module, latents_folder, other):
    data = data_of(latents_folder)
    data.setup("fit")
    if other is not None:
        data.train_reader.index[other] = "another"
    module.trainer.datamodule = data
    if other is None:
        module.check_data()
    else:
        with pytest.raises(UserError, match=f"was prepared with another {other}"):
            module.check_data()


def test_gradients_are_pending_from_a_backward_pass_to_its_update(teacher_folder, latents_folder, tmp_path):
    module, pending = module_of(teacher_folder), []
    pending.append(module.has_pending_gradients)
    watch = Watch(lambda _trainer, module, _batch: pending.append(module.has_pending_gradients))
    trainer_of(tmp_path, watch, accumulate_grad_batches=2, max_steps=2).fit(module, data_of(latents_folder))
    assert pending == [False, True, False, True, False]
