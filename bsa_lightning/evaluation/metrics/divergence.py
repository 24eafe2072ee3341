"""Scores of clips one by one: their classes beside the reference's, and their sound beside its caption."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from bsa_lightning.evaluation.metrics.kernel import NoValueError

EPSILON = 1e-6
"""What audioldm_eval adds to the probabilities of generated clips before it takes their logarithm."""


def kl_divergence(reference: Tensor, generated: Tensor) -> Tensor:
    """The mean of sum_c p_c log(p_c / (q_c + 1e-6)) over pairs of clips, as published scores have it.

    Args:
        reference: logits (n, classes) of real sound, whose softmax is p.
        generated: logits (n, classes) of the clips of the same captions, whose softmax is q.
    """
    p, q = reference.double().softmax(1), generated.double().softmax(1)
    return _mean_divergence(p, q)


def kl_divergence_sigmoid(reference: Tensor, generated: Tensor) -> Tensor:
    """The same with sigmoids in place of softmaxes: classes that do not exclude one another (audioldm_eval's other KL).

    No p_c is the probability of an event that excludes the others, so it is no divergence, and may be negative.

    Args:
        reference: logits (n, classes) of real sound.
        generated: logits (n, classes) of the clips of the same captions.
    """
    return _mean_divergence(reference.double().sigmoid(), generated.double().sigmoid())


def _mean_divergence(p: Tensor, q: Tensor) -> Tensor:
    return (torch.xlogy(p, p) - p * (q + EPSILON).log()).sum(1).mean()


def inception_score(logits: Tensor, *, num_splits: int = 10, seed: int = 2020) -> Tensor:
    """exp of the mean KL(class probabilities of a clip || their mean), of logits (n, classes).

    Clips are shuffled by ``seed`` and dealt out to splits of their own means; the score is the mean over splits.

    Raises:
        NoValueError: if there are fewer clips than splits.
    """
    n = len(logits)
    if n < num_splits:
        raise NoValueError(
            f"an inception score of {num_splits} splits needs as many clips, but there are {n}; score more"
        )
    order = np.random.RandomState(seed).permutation(n)
    probabilities = logits.double().softmax(1)[torch.from_numpy(order)]
    bounds = [i * n // num_splits for i in range(num_splits + 1)]
    scores = []
    for first, last in pairwise(bounds):
        part = probabilities[first:last]
        marginal = part.mean(0).clamp(min=torch.finfo(part.dtype).tiny).log()
        scores.append((torch.xlogy(part, part) - part * marginal).sum(1).mean().exp())
    return torch.stack(scores).mean()


def clap_score(sound: Tensor, captions: Tensor) -> Tensor:
    """100 times the cosine of rows of sound (n, d) and those of their captions (n, d), row by row (n,)."""
    return 100 * torch.cosine_similarity(sound.double(), captions.double(), dim=1)
