"""LoRA: low-rank adapters beside the frozen weights of a network (peft); their start, their merging and their files."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from bsa_lightning.common.errors import UserError
from bsa_lightning.common.ranges import check_number
from bsa_lightning.models.base import Denoiser
from bsa_lightning.models.weight_files import read_weights

if TYPE_CHECKING:
    from peft import LoraConfig
    from peft.tuners.lora import LoraLayer

ADAPTER = "adapter"
"""The subfolder of a student's folder with its adapter."""
PEFT_PREFIX = "base_model.model"
"""What stands before the names of weights in peft's files, and in diffusers' ``prefix`` that reads them."""
WEIGHTS = "adapter_model.safetensors"
_ATTENTION = (
    *("to_q", "to_k", "to_v", "to_out.0"),
    *("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"),  # of a second stream, as in TangoFlux
    *("to_qkv", "to_kv", "to_out"),  # as in Stable Audio 3
)
"""The names in diffusers of the projections of attention: queries, keys, values and outputs."""
_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d)
_NAME = "default"
"""The name of the adapter in peft, which supports several in one network."""


class LoRA:
    """Low-rank adapters (Hu et al. 2021): W + (alpha / rank) B A in place of a weight W, with A and B trained alone.

    Teacher, student and moving average share the one copy of W in memory.

    Args:
        rank: the rank of B A, at least 1 and below that of the layers.
        alpha: the numerator of the factor of B A, above 0; ``None`` is ``rank``, so that the factor is 1.
        target_modules: the ends of the names of the layers that get an adapter, linear or convolutional, such as
            ["to_q", "ff.net.2"]; ``None`` takes the projections of all attentions: queries, keys, values and outputs.

    Raises:
        UserError: if a number is out of its range, or ``target_modules`` is empty.
    """

    def __init__(self, rank: int = 16, alpha: float | None = None, target_modules: list[str] | None = None) -> None:
        check_number("rank of the adapter", rank, whole=True, at_least=1)
        if alpha is not None:
            check_number("alpha of the adapter", alpha, above=0, advice="leave it out for a factor of 1")
        if target_modules is not None and not target_modules:
            raise UserError("target_modules of the adapter is empty, but names the layers to train; leave it out")
        self.rank = rank
        self.alpha = alpha
        self.target_modules = target_modules

    def attach(self, denoiser: Denoiser) -> None:
        """Adds adapters to a network in place; all other parameters become frozen.

        Raises:
            UserError: if a name of ``target_modules`` is that of no layer, or the rank is that of no smaller matrix.
        """
        from peft import inject_adapter_in_model

        targets = self._targets(denoiser.network)
        full = max(min(w.shape[0], w[0].numel()) for w in _adapted_weights(denoiser.network, targets))
        if self.rank >= full:
            raise UserError(
                f"rank of the adapter is {self.rank}, but the layers that it adapts have a full rank of {full} or less;"
                " choose less, or leave the adapter out"
            )
        inject_adapter_in_model(_config(self.rank, self.alpha or self.rank, targets), denoiser.network, _NAME)

    def _targets(self, network: nn.Module) -> list[str]:
        layers = [name for name, layer in network.named_modules() if isinstance(layer, _LAYERS)]

        def is_layer(end: str) -> bool:
            return any(f".{name}".endswith(f".{end}") for name in layers)

        wanted = _ATTENTION if self.target_modules is None else self.target_modules
        found = [end for end in wanted if is_layer(end)]
        unknown = [end for end in wanted if end not in found]
        if not found or (unknown and self.target_modules is not None):
            valid = sorted({_end(name) for name in layers})
            raise UserError(
                f"target_modules of the adapter is {self.target_modules}, but no layer of the network has a name that"
                f" ends in {' or in '.join(unknown)}; its layers end in {', '.join(valid)}"
            )
        return found


def _adapted_weights(network: nn.Module, targets: list[str]) -> Iterator[Tensor]:
    """Yields the weights of the layers whose names end in one of the targets."""
    for name, layer in network.named_modules():
        if isinstance(layer, _LAYERS) and any(f".{name}".endswith(f".{end}") for end in targets):
            yield layer.weight


@torch.no_grad()
def restart_adapters(denoiser: Denoiser, generator: torch.Generator) -> None:
    """Gives adapters the values of a start: A random, as of a linear layer of torch, and B zero, so that B A is zero.

    Args:
        denoiser: the network with adapters.
        generator: the generator of A, on the CPU, so that A is the same on every device.
    """
    for _, layer in _layers(denoiser):
        first = layer.lora_A[_NAME].weight
        drawn = torch.empty(first.shape)
        nn.init.kaiming_uniform_(drawn, a=math.sqrt(5), generator=generator)
        first.copy_(drawn)
        layer.lora_B[_NAME].weight.zero_()


@torch.no_grad()
def merged_weights(denoiser: Denoiser) -> dict[str, Tensor]:
    """The weights of a network whose adapters are merged, W + (alpha / rank) B A, by their names without adapters."""
    deltas = {f"{name}.base_layer.weight": layer.get_delta_weight(_NAME) for name, layer in _layers(denoiser)}
    weights: dict[str, Tensor] = {}
    for name, tensor in denoiser.state_dict().items():
        if ".lora_A." not in name and ".lora_B." not in name:
            weights[name.replace(".base_layer.", ".")] = tensor + deltas[name] if name in deltas else tensor
    return weights


def write_adapter(denoiser: Denoiser, folder: Path, *, earlier: Path | None = None) -> dict[str, Any]:
    """Writes the adapters of a network in peft's format, which diffusers' ``load_lora_adapter`` reads, too.

    Args:
        denoiser: the network.
        folder: the folder to write, which must not exist.
        earlier: a folder with the adapters that were merged into the network before; the sum of both is written, as one
            adapter of the sum of their ranks. ``None`` writes those of the network alone.

    Returns:
        The rank, the alpha and the target modules of what is written.
    """
    from peft.utils import get_peft_model_state_dict
    from safetensors.torch import save_file

    ours = next(iter(denoiser.network.peft_config.values()))  # type: ignore[operator]
    weights = get_peft_model_state_dict(denoiser.network, adapter_name=_NAME)
    weights = {f"{PEFT_PREFIX}.{name}": tensor.detach().cpu() for name, tensor in weights.items()}
    if earlier is not None:
        before = read_weights(earlier / WEIGHTS)
        # B' A' + B A = [B', B] [A'; A]
        weights = {
            name: torch.cat([before[name], tensor], dim=0 if ".lora_A." in name else 1)
            for name, tensor in weights.items()
        }
    rank = next(len(tensor) for name, tensor in weights.items() if ".lora_A." in name)
    config = _config(rank, ours.lora_alpha * rank / ours.r, sorted(ours.target_modules))
    folder.mkdir(parents=True)
    described = _plain(config.to_dict())
    (folder / "adapter_config.json").write_text(json.dumps(described, indent=2, sort_keys=True) + "\n")
    for_diffusers = json.dumps({f"{PEFT_PREFIX}.{name}": value for name, value in described.items()}, sort_keys=True)
    contiguous = {name: tensor.contiguous() for name, tensor in weights.items()}
    # A second entry of the metadata would make the bytes vary, since safetensors writes them in random order.
    save_file(contiguous, folder / WEIGHTS, metadata={"lora_adapter_metadata": for_diffusers})
    return {"rank": rank, "alpha": config.lora_alpha, "target_modules": described["target_modules"]}


def has_loader(network: nn.Module) -> bool:
    """Whether diffusers' class of a network has ``load_lora_adapter``; peft itself reads adapters for any."""
    return hasattr(network, "load_lora_adapter")


def _config(rank: int, alpha: float, targets: list[str]) -> LoraConfig:
    from peft import LoraConfig

    return LoraConfig(r=rank, lora_alpha=alpha, target_modules=targets, lora_dropout=0.0, bias="none")


def _layers(denoiser: Denoiser) -> Iterator[tuple[str, LoraLayer]]:
    from peft.tuners.lora import LoraLayer

    return ((name, module) for name, module in denoiser.named_modules() if isinstance(module, LoraLayer))


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of peft as JSON has them; without peft's version, so that equal runs have equal files."""
    return {
        name: sorted(value) if isinstance(value, set) else value
        for name, value in settings.items()
        if name != "peft_version"
    }


def _end(name: str) -> str:
    """The end of a layer's name that ``target_modules`` would give, such as "to_q", "to_out.0" or "net.0.proj"."""
    parts = name.split(".")
    return ".".join(parts[-2:]) if parts[-1].isdigit() else parts[-1]
