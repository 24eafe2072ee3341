import multiprocessing

import pytest
import torch
from ladder import data_of
from lightning.pytorch import Trainer
from tolerances import FLOAT32
from validation_ranks import add, validate_rank, validated, values_of

from bsa_lightning.data.order import PADDING
from bsa_lightning.diffusion.losses import Errors
from bsa_lightning.distillation.denoising import Denoising
from bsa_lightning.distillation.validation import ValidationErrors, WeightedMean

CASES = [(7, 2), (7, 4), (3, 1), (1, 4), (8, 3)]
"""Clips and batch size: ranks that have less, a last batch of nothing but filling, a rank without any clip."""


def close(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, **FLOAT32, msg=name)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_two_ranks_say_what_one_process_says(tmp_path):
    multiprocessing.set_forkserver_preload(["bsa_lightning.distillation.validation"])
    arguments = (2, str(tmp_path), CASES)
    torch.multiprocessing.start_processes(validate_rank, arguments, nprocs=2, start_method="forkserver")
    for rank in range(2):
        *errors, mean = torch.load(tmp_path / f"{rank}.pt")
        for found, (num_clips, batch_size) in zip(errors, CASES, strict=True):
            close(found, validated(num_clips, batch_size=batch_size).compute())
        assert mean == (3.0 * 2 + 5.0 + 1.0 * 2) / 5


@pytest.mark.parametrize(("num_clips", "batch_size"), CASES)
def test_one_process_has_the_bits_it_had_without_padding(num_clips, batch_size):
    plain, values = ValidationErrors(), values_of(num_clips)
    for first in range(0, num_clips, batch_size):
        add(plain, {name: value[first : first + batch_size] for name, value in values.items()})
    found, expected = validated(num_clips, batch_size=batch_size).compute(), plain.compute()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_the_plain_mean_over_all_clips():
    values = values_of(7)
    found = validated(7, batch_size=2).compute()
    torch.testing.assert_close(found["val/distillation_error"], (values["weight"] * values["error"]).mean(), **FLOAT32)
    torch.testing.assert_close(found["val/trajectory_error"], values["distance"].mean(), **FLOAT32)


@pytest.mark.parametrize(("rank", "world_size"), [(0, 1), (0, 2), (1, 2)])
def test_the_loss_of_a_denoiser_leaves_filling_out(teacher_folder, latents_folder, monkeypatch, rank, world_size):
    """5 clips in batches of 2, where the loss of a batch is the mean of its places: 2 on every rank alone, too.

    The second of two ranks has clips 1 and 3, and then a batch of nothing but filling.
    """
    data = data_of(latents_folder, batch_size=2, num_val_clips=5)
    module = Denoising(str(teacher_folder), ema_decay=None)
    monkeypatch.setattr(data, "_rank_and_world_size", lambda: (rank, world_size))
    monkeypatch.setattr(module, "_errors_of", lambda _, batch, *__: Errors(torch.ones(()), batch.index.float(), None))
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        use_distributed_sampler=False,
    )  # fmt: skip
    trainer.validate(module, data, verbose=False)
    assert trainer.callback_metrics["val/loss"] == 2.0


def test_a_loss_that_is_no_number_is_not_hidden():
    mean = WeightedMean()
    mean.update(torch.tensor(torch.nan), torch.tensor(2))
    mean.update(torch.tensor(1.0), torch.tensor(2))
    assert mean.compute().isnan()
    mean.update(torch.tensor(1.0), torch.tensor(2))
    assert mean.compute() == 1.0


@pytest.mark.parametrize(
    ("errors", "update"),
    [
        (ValidationErrors(), lambda errors, one: errors.update(Errors(one, one, one), distance=one)),
        (WeightedMean(), lambda mean, one: mean.update(one, one)),
    ],
    ids=["errors", "mean"],
)
def test_a_validation_may_follow_one_in_inference_mode(errors, update):
    one = torch.ones(1)
    with torch.inference_mode():
        update(errors, one)
        first = errors.compute()
    update(errors, one)
    assert errors.compute() == first


def test_padding_is_marked_in_a_batch(latents_folder):
    data = data_of(latents_folder, batch_size=2, num_val_clips=5)
    data._rank_and_world_size = lambda: (1, 2)
    data.setup("fit")
    batches = list(data.val_dataloader())
    assert [batch.index.tolist() for batch in batches] == [[1, 3], [PADDING]]
    assert [batch.counts.tolist() for batch in batches] == [[True, True], [False]]


def test_what_bins_of_snr_add_sums_up_to_the_loss():
    errors = ValidationErrors()
    weight, error = torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([1.0, 4.0, 0.25, 1.0])
    errors.update(Errors(weight, error, torch.tensor([0.01, 0.5, 0.5, 9.0])), distance=torch.zeros(4))
    found = {name.removeprefix("val/"): float(value) for name, value in errors.compute().items()}
    losses, gradients = (
        [found[f"{part}_snr{bin_}"] for bin_ in ("<0.1", "<1", "<5", ">5")] for part in ("loss", "gradient")
    )
    assert losses == [0.25, 2.1875, 0.0, 1.0]
    assert sum(losses) == found["distillation_error"]
    assert gradients == [0.25, 1.375, 0.0, 1.0]  # w |x - x*|
    assert "error_snr<5" not in found
    assert found["error_snr<1"] == 2.125


def test_errors_are_told_apart_at_snrs_of_a_tenth_one_and_five():
    errors, one = ValidationErrors(), torch.ones(6)
    snr = torch.tensor([0.05, 0.15, 0.9, 1.5, 4.0, 7.0], dtype=torch.float64)
    errors.update(Errors(one, torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0, 32.0]), snr), distance=one)
    found = errors.compute()
    assert [float(found[f"val/error_snr{name}"]) for name in ("<0.1", "<1", "<5", ">5")] == [1.0, 3.0, 12.0, 32.0]
    errors.update(Errors(one, one, torch.full((6,), 0.5)), distance=one)  # after a fresh start
    assert {name for name in errors.compute() if "error_snr" in name} == {"val/error_snr<1"}


def test_clips_that_fill_a_batch_are_left_out():
    errors, alone = ValidationErrors(), ValidationErrors()
    values = values_of(3)
    add(errors, values, torch.tensor([True, False, True]))
    add(alone, {name: value[[0, 2]] for name, value in values.items()})
    found, expected = errors.compute(), alone.compute()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())
