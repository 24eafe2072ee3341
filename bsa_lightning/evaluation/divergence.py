"""Scores of clips one by one: their classes beside the reference's, and their sound beside its caption."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from bsa_lightning.errors import UserError


def kl_divergence(reference: Tensor, generated: Tensor) -> Tensor:
    """KL(reference || generated) of softmaxed logits (n, classes), pair by pair, summed over classes; the mean."""
    p, q = reference.double().log_softmax(1), generated.double().log_softmax(1)
    return (p.exp() * (p - q)).sum(1).mean()


def inception_score(logits: Tensor, *, num_splits: int = 10, seed: int = 2020) -> Tensor:
    """exp of the mean KL(class probabilities of a clip || their mean), of logits (n, classes).

    Clips are shuffled by ``seed`` and dealt out to splits of their own means; the score is the mean over splits.

    Raises:
        UserError: if there are fewer clips than splits.
    """
    n = len(logits)
    if n < num_splits:
        raise UserError(f"an inception score of {num_splits} splits needs as many clips, but there are {n}; score more")
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
