"""Measures of class logits (KL divergences, inception score), and the CLAP score of sound and captions."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from bsa_lightning.evaluation.metrics.kernel import NoValueError

EPSILON = 1e-6
"""The number that audioldm_eval adds to the probabilities of generated clips before it takes their logarithm."""


def kl_divergence(reference: Tensor, generated: Tensor) -> Tensor:
    """Returns the mean of sum_c p_c log(p_c / (q_c + 1e-6)) over pairs of clips, as in published scores.

    Args:
        reference: the logits of real sound, (n, classes), whose softmax is p.
        generated: the logits of generated sound for the same captions, (n, classes), whose softmax is q.
    """
    p, q = reference.double().softmax(1), generated.double().softmax(1)
    return _mean_divergence(p, q)


def kl_divergence_sigmoid(reference: Tensor, generated: Tensor) -> Tensor:
    """Returns the mean of :func:`kl_divergence` with sigmoids in place of softmaxes (audioldm_eval's second KL).

    The classes do not exclude one another, so that this is not a divergence, and may be negative.

    Args:
        reference: the logits of real sound, (n, classes).
        generated: the logits of generated sound for the same captions, (n, classes).
    """
    return _mean_divergence(reference.double().sigmoid(), generated.double().sigmoid())


def _mean_divergence(p: Tensor, q: Tensor) -> Tensor:
    return (torch.xlogy(p, p) - p * (q + EPSILON).log()).sum(1).mean()


def inception_score(logits: Tensor, *, num_splits: int = 10, seed: int = 2020) -> Tensor:
    """Returns the exponential of the mean KL divergence of class probabilities from their mean over clips.

    Clips are shuffled and divided into splits, each with its own mean; the score is the mean over splits.

    Args:
        logits: the class logits, (n, classes).
        num_splits: the number of splits, at least 1.
        seed: the seed of the shuffling.

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
    """Returns 100 times the cosine of the rows of sound, (n, d), and of their captions, (n, d), row by row: (n,)."""
    return 100 * torch.cosine_similarity(sound.double(), captions.double(), dim=1)
