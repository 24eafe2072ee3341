"""A denoiser with fixed conditioning and guidance scale: the function that samplers and the target call."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bsa_lightning.common.errors import UserError
from bsa_lightning.diffusion.guidance import guide
from bsa_lightning.diffusion.process import Prediction
from bsa_lightning.models.base import Denoiser
from bsa_lightning.models.conditioning import Conditioning


def predictor(
    denoiser: Denoiser,
    conditioning: Conditioning,
    *,
    null: Conditioning | None = None,
    guidance_scale: float | Tensor = 1.0,
) -> Callable[[Tensor, Tensor], Prediction]:
    """The function from ``z_t`` (batch, ...) and ``t`` (batch,), on the CPU, to the denoiser's guided prediction.

    Args:
        denoiser: the denoiser. If its network takes the guidance scale, one evaluation suffices; any other is
            evaluated on a batch of twice the size, the conditional and the unconditional branch, unless the scale is 1.
        conditioning: the conditioning of the batch.
        null: the conditioning of the empty caption, one clip, for the unconditional branch.
        guidance_scale: the guidance scale of all clips, or of each clip, (batch,), on the CPU.

    Raises:
        UserError: if the unconditional branch is needed and ``null`` is ``None``.
    """
    if denoiser.takes_guidance:
        scales = torch.as_tensor(guidance_scale).float().expand(len(conditioning))
        return lambda z_t, t: denoiser(z_t, t, conditioning, scales.to(z_t.device, non_blocking=True))
    if not isinstance(guidance_scale, Tensor) and guidance_scale == 1.0:
        return lambda z_t, t: denoiser(z_t, t, conditioning)
    if null is None:
        raise UserError(
            f"guidance_scale is {guidance_scale}, but guidance outside of the network needs the conditioning of the"
            " empty caption; pass null, or set the scale to 1"
        )

    both = Conditioning.cat([conditioning, denoiser.null_beside(null, conditioning)])

    def guided(z_t: Tensor, t: Tensor) -> Prediction:
        x, eps = denoiser(torch.cat([z_t, z_t]), torch.cat([t, t]), both)
        (x_cond, x_uncond), (eps_cond, eps_uncond) = x.chunk(2), eps.chunk(2)
        return guide(cond=Prediction(x_cond, eps_cond), uncond=Prediction(x_uncond, eps_uncond), scale=guidance_scale)

    return guided


class CountEvaluations:
    """A context that counts the evaluations of a network: the clips of all its batches, in ``rows``."""

    def __init__(self, denoiser: Denoiser) -> None:
        self.denoiser = denoiser
        self.rows = 0

    def __enter__(self) -> CountEvaluations:
        self._handle = self.denoiser.network.register_forward_hook(self._count)
        return self

    def __exit__(self, *_: object) -> None:
        self._handle.remove()

    def _count(self, _network: object, arguments: tuple[Tensor, ...], _output: object) -> None:
        self.rows += len(arguments[0])
