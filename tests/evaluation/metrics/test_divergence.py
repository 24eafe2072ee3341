from functools import partial

import numpy as np
import pytest
import torch
from frechet_rows import rows
from scipy.special import rel_entr, softmax
from tolerances import IDENTITY
from torch.nn.functional import kl_div

from bsa_lightning.common.errors import UserError
from bsa_lightning.evaluation.metrics.divergence import (
    clap_score,
    inception_score,
    kl_divergence,
    kl_divergence_sigmoid,
)


def test_divergence_is_of_the_reference_from_the_generated_pair_by_pair():
    x, y = rows(30, 7), rows(30, 7, 1)
    expected = rel_entr(softmax(x.numpy(), 1), softmax(y.numpy(), 1) + 1e-6).sum(1).mean()
    torch.testing.assert_close(float(kl_divergence(x, y)), expected, **IDENTITY)
    assert float(kl_divergence(y, x)) != pytest.approx(expected, rel=0.01)
    assert float(kl_divergence(x, y.flip(0))) != pytest.approx(expected, rel=0.01)
    assert float(kl_divergence(x, x)) == pytest.approx(-7e-6, rel=0.1)


def test_divergences_are_those_of_audioldm_eval():
    """Its formula, by torch's own kl_div, on logits so sure that the 1e-6 inside its logarithm decides."""
    x, y = 20 * rows(30, 7), 20 * rows(30, 7, 1)
    for ours, activation in ((kl_divergence, partial(torch.softmax, dim=1)), (kl_divergence_sigmoid, torch.sigmoid)):
        total = kl_div((activation(y.double()) + 1e-6).log(), activation(x.double()), reduction="sum")
        torch.testing.assert_close(float(ours(x, y)), float(total) / 30, **IDENTITY)
    assert float(kl_divergence(x, y)) < 0.9 * rel_entr(softmax(x.numpy(), 1), softmax(y.numpy(), 1)).sum(1).mean()


def test_inception_score_is_its_definition():
    logits = rows(33, 7)
    p = softmax(logits.numpy(), 1)[np.random.RandomState(2020).permutation(33)]
    parts = [p[i * 33 // 10 : (i + 1) * 33 // 10] for i in range(10)]
    expected = np.mean([np.exp(rel_entr(part, part.mean(0)).sum(1).mean()) for part in parts])
    torch.testing.assert_close(float(inception_score(logits)), expected, **IDENTITY)


def test_inception_score_of_sure_and_even_classes_is_their_number_and_of_one_class_is_one():
    sure = 1e4 * torch.eye(5).repeat(10, 1)
    assert float(inception_score(sure, num_splits=1)) == pytest.approx(5, rel=1e-12)
    assert float(inception_score(sure[:1].repeat(20, 1))) == pytest.approx(1, rel=1e-12)


def test_inception_score_of_too_few_clips_is_refused():
    with pytest.raises(UserError, match="10 splits needs as many clips, but there are 9"):
        inception_score(rows(9, 7))


def test_clap_score_is_a_mean_cosine_whatever_the_lengths():
    sound = torch.tensor([[2.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    captions = torch.tensor([[1.0, 0.0], [3.0, 0.0], [-1.0, 1.0]])
    assert float(clap_score(sound, captions).mean()) == pytest.approx(100 / 3, rel=1e-12)


@pytest.mark.parametrize("measure", [kl_divergence, kl_divergence_sigmoid, clap_score])
def test_is_computed_in_float64_whatever_comes_in(measure):
    x, y = rows(30, 7).float(), rows(30, 7, 1).float()
    for pair in ((x, y), (x.double(), y), (x, y.double())):
        torch.testing.assert_close(measure(*pair), measure(x.double(), y.double()), **IDENTITY)


def test_an_inception_score_of_as_many_clips_as_splits_is_one():
    assert float(inception_score(rows(10, 7))) == pytest.approx(1, rel=1e-12)
