import numpy as np
import pytest
import torch
from frechet_rows import rows
from tolerances import IDENTITY

from bsa_lightning.common.errors import UserError
from bsa_lightning.evaluation.metrics import kernel
from bsa_lightning.evaluation.metrics.kernel import KernelDistance, as_kadtk, median_distance


def by_pairs(x, y, bandwidth, x_clips=None, y_clips=None):
    """The definition, pair by pair: without clips every row is one of its own, on its own side."""
    paired = x_clips is not None
    x_clips = range(len(x)) if x_clips is None else x_clips.tolist()
    y_clips = range(len(y)) if y_clips is None else y_clips.tolist()

    def mean(a, b, a_clips, b_clips, *, all_pairs=False):
        values = [
            np.exp(-np.sum((p - q) ** 2) / (2 * bandwidth**2))
            for p, i in zip(a, a_clips, strict=True)
            for q, j in zip(b, b_clips, strict=True)
            if all_pairs or i != j
        ]
        return np.mean(values)

    within = mean(x, x, x_clips, x_clips) + mean(y, y, y_clips, y_clips)
    return 100 * (within - 2 * mean(x, y, x_clips, y_clips, all_pairs=not paired))


@pytest.mark.parametrize(("chunk", "pairs"), [(7, 2**24), (2048, 2**24), (2048, 45), (2048, 1)])
def test_is_its_definition_with_the_references_bandwidth(chunk, pairs, monkeypatch):
    monkeypatch.setattr(kernel, "_CHUNK", chunk)
    monkeypatch.setattr(kernel, "_PAIRS", pairs)
    x, y = rows(20, 3), 3 * rows(15, 3, 1) + 0.5
    distances = [float((x[i] - x[j]).norm()) for i in range(20) for j in range(i)]
    assert median_distance(x) == pytest.approx(np.quantile(distances, 0.5, method="lower"), rel=1e-12)
    expected = by_pairs(x.numpy(), y.numpy(), median_distance(x))
    torch.testing.assert_close(float(KernelDistance(x)(y)), expected, **IDENTITY)


@pytest.mark.parametrize("chunk", [7, 2048])
def test_rows_of_one_clip_and_of_one_caption_are_no_pairs(chunk, monkeypatch):
    monkeypatch.setattr(kernel, "_CHUNK", chunk)
    x, y = rows(20, 3), 3 * rows(15, 3, 1) + 0.5
    x_clips, y_clips = torch.arange(20) // 3, torch.arange(15) // 2 + 2
    expected = by_pairs(x.numpy(), y.numpy(), median_distance(x), x_clips, y_clips)
    torch.testing.assert_close(float(KernelDistance(x, x_clips)(y, y_clips)), expected, **IDENTITY)


def test_without_numbers_on_both_sides_all_pairs_between_them_count():
    x, y = rows(20, 3), 3 * rows(15, 3, 1) + 0.5
    for x_clips, y_clips in ((torch.arange(20) // 3, None), (None, torch.arange(15) // 2)):
        apart = by_pairs(
            x.numpy(), y.numpy(), median_distance(x),
            torch.arange(20) if x_clips is None else x_clips, 100 + (torch.arange(15) if y_clips is None else y_clips),
        )  # fmt: skip
        torch.testing.assert_close(float(KernelDistance(x, x_clips)(y, y_clips)), apart, **IDENTITY)


def test_is_computed_in_float64_whatever_comes_in():
    x, y = rows(20, 3).float(), rows(15, 3, 1).float()
    expected = KernelDistance(x.double())(y.double())
    for pair in ((x, y), (x.double(), y), (x, y.double())):
        torch.testing.assert_close(KernelDistance(pair[0])(pair[1]), expected, **IDENTITY)
    assert isinstance(median_distance(x), float)
    assert median_distance(x) == median_distance(x.double())


def test_two_clips_are_enough():
    x, y = rows(2, 3), rows(2, 3, 1)
    expected = by_pairs(x.numpy(), y.numpy(), median_distance(x))
    torch.testing.assert_close(float(KernelDistance(x)(y)), expected, **IDENTITY)


def test_as_kadtk_takes_all_pairs_and_the_generated_sides_bandwidth():
    x, y = rows(20, 3), 3 * rows(15, 3, 1) + 0.5
    expected = by_pairs(x.numpy(), y.numpy(), median_distance(y))
    torch.testing.assert_close(float(as_kadtk(x, y)), expected, **IDENTITY)


def clips_of(num_clips, *, generator, captions=None):
    """Five alike rows a clip: most of the variance is between clips, and half of that is the caption's."""
    made = torch.randn(num_clips, 1, 8, generator=generator)
    if captions is not None:
        made = (captions + made) / 2**0.5
    return (made + 0.3 * torch.randn(num_clips, 5, 8, generator=generator)).flatten(0, 1)


@pytest.mark.parametrize("num_clips", [5, 10, 40])
@pytest.mark.parametrize("paired", [False, True])
def test_has_no_bias_in_the_number_of_clips_of_several_rows(num_clips, paired):
    """Two samples of one distribution are at zero on average; with all pairs they are not."""
    generator, found, found_as_kadtk = torch.Generator().manual_seed(0), [], []
    numbers = torch.arange(num_clips).repeat_interleave(5)
    for _ in range(150):
        captions = torch.randn(num_clips, 1, 8, generator=generator) if paired else None
        x, y = (clips_of(num_clips, generator=generator, captions=captions) for _ in range(2))
        y_clips = numbers if paired else numbers + num_clips
        found.append(KernelDistance(x, numbers, bandwidth=4.0)(y, y_clips))
        found_as_kadtk.append(KernelDistance(x, bandwidth=4.0)(y))
    values, all_pairs = torch.stack(found), torch.stack(found_as_kadtk)
    assert abs(float(values.mean())) < 3 * float(values.std()) / 150**0.5
    assert abs(float(all_pairs.mean())) > 3 * float(all_pairs.std()) / 150**0.5


def test_a_far_mean_costs_no_digits():
    x, y = rows(40, 3), rows(30, 3, 1)
    torch.testing.assert_close(KernelDistance(x + 1e4)(y + 1e4), KernelDistance(x)(y), rtol=1e-7, atol=1e-9)


def test_has_no_bias_in_the_number_of_rows():
    """Samples of one distribution are at zero on average, however few rows they have."""
    generator = torch.Generator().manual_seed(0)
    found = [KernelDistance(x, bandwidth=4.0)(y) for x, y in torch.randn(200, 2, 20, 8, generator=generator)]
    values = torch.stack(found)
    assert abs(float(values.mean())) < 3 * float(values.std()) / 200**0.5
    assert values.min() < 0


def test_of_very_many_rows_the_median_is_of_some(monkeypatch):
    x = rows(100, 3)
    monkeypatch.setattr(kernel, "_MOST", 50)
    assert median_distance(x) == median_distance(x[::2])


def test_hopeless_input_is_refused():
    with pytest.raises(UserError, match="needs two clips on each side, but one side has 1"):
        KernelDistance(rows(5, 3))(rows(1, 3))
    with pytest.raises(UserError, match="needs two clips on each side, but one side has 1"):
        KernelDistance(rows(1, 3))
    with pytest.raises(UserError, match="needs two clips on each side, but one side has 1"):
        KernelDistance(rows(5, 3), torch.arange(5))(rows(4, 3), torch.zeros(4))
    with pytest.raises(UserError, match="half of the pairs of rows of one side are alike"):
        KernelDistance(torch.ones(5, 3))


def test_no_more_pairs_than_said_are_in_memory(monkeypatch):
    assert kernel._PAIRS * torch.float64.itemsize == 128 * 2**20
    sizes, squares = [], kernel._squares
    monkeypatch.setattr(kernel, "_PAIRS", 60)
    monkeypatch.setattr(kernel, "_squares", lambda x, y: sizes.append(len(x) * len(y)) or squares(x, y))
    KernelDistance(rows(20, 3))(rows(15, 3, 1))
    assert max(sizes) == 60
    assert sum(sizes) == 20 * 20 + 15 * 15 + 20 * 15
    sizes.clear()
    monkeypatch.setattr(kernel, "_PAIRS", 1)
    KernelDistance(rows(20, 3))
    assert set(sizes) == {20}  # a row at a time, at least
