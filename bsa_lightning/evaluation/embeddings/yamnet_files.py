"""YAMNet's weights in the formats that people have them in: Keras' HDF5, and ONNX."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bsa_lightning.common.files import sha256_of_file
from bsa_lightning.evaluation.embeddings.onnx_graph import Graph
from bsa_lightning.evaluation.embeddings.published_weights import OtherWeightsError

_HDF5 = b"\x89HDF\r\n\x1a\n"
_EPSILON = 1e-4
"""What YAMNet's batch norms add to a variance."""
_NUM_CONVOLUTIONS, _NUM_SEPARABLE = 27, 13
_CLASSIFIER = (521, 1024)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Returns the weights of a file by the names of ``YAMNetNetwork``, with batch norms in the convolutions' weights.

    Args:
        path: a Keras file of weights or of a model (HDF5), or a graph (ONNX, with its data in one file or two).

    Raises:
        OtherWeightsError: if the file holds another network.
        Exception: of any kind, if the file is damaged.
    """
    arrays = _from_hdf5(path) if _is_hdf5(path) else _from_onnx(path)
    return {name: torch.from_numpy(np.ascontiguousarray(array, np.float32)) for name, array in arrays.items()}


def sha256_of_data(path: Path) -> str:
    """Returns a hyphen and the SHA-256 of each further file with numbers of an ONNX graph; empty if there is none."""
    files = [] if _is_hdf5(path) else Graph(path).data_files()
    return "".join(f"-{sha256_of_file(file)}" for file in files)


def _is_hdf5(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_HDF5)) == _HDF5


Array = NDArray[np.float64]


def _from_hdf5(path: Path) -> dict[str, Array]:
    import h5py

    held: dict[str, Array] = {}

    def keep(name: str, item: object) -> None:
        # A weight's path holds its layer's name twice, and the whole model's begins with a folder more.
        layer = re.search(r"(layer\d+/(?:\w+_)?conv(?:/bn)?|logits|dense\w*)/(\w+)(?::0)?$", name)
        if isinstance(item, h5py.Dataset) and layer and not name.startswith("optimizer"):
            kind = "classifier" if "/" not in layer[1] else layer[1]
            held[f"{kind}/{layer[2]}"] = item[()].astype(np.float64)

    with h5py.File(path, "r") as file:
        file.visititems(keep)

    def weight(name: str) -> Array:
        if name not in held:
            raise OtherWeightsError(f"it lacks {name}")
        return held[name]

    found = {"classifier.weight": weight("classifier/kernel").T, "classifier.bias": weight("classifier/bias")}
    separable = [f"layer{i + 2}/{kind}_conv" for i in range(_NUM_SEPARABLE) for kind in ("depthwise", "pointwise")]
    for i, layer in enumerate(["layer1/conv", *separable]):
        is_depthwise = "depthwise" in layer
        kernel = weight(f"{layer}/{'depthwise_kernel' if is_depthwise else 'kernel'}")  # (time, frequency, in, out)
        kernel = kernel.transpose(2, 3, 0, 1) if is_depthwise else kernel.transpose(3, 2, 0, 1)
        beta, mean, variance = (weight(f"{layer}/bn/{part}") for part in ("beta", "moving_mean", "moving_variance"))
        scale = 1 / np.sqrt(variance + _EPSILON)
        found[f"convolutions.{i}.weight"] = kernel * scale[:, None, None, None]
        found[f"convolutions.{i}.bias"] = beta - mean * scale
    return found


def _from_onnx(path: Path) -> dict[str, Array]:
    graph = Graph(path)
    # A graph that begins with sound computes its spectrogram by convolutions too, with long kernels.
    convolutions = [pair for pair in graph.convolutions() if pair[0].shape[2:] in ((3, 3), (1, 1))]
    classifiers = [pair for pair in graph.linear_layers() if pair[0].shape == _CLASSIFIER]
    if (len(convolutions), len(classifiers)) != (_NUM_CONVOLUTIONS, 1):
        raise OtherWeightsError(
            f"it has {len(convolutions)} convolutions with known weights and {len(classifiers)} classifiers of"
            f" {_CLASSIFIER[0]} classes where YAMNet has {_NUM_CONVOLUTIONS} and 1"
        )
    found = {"classifier.weight": classifiers[0][0], "classifier.bias": classifiers[0][1]}
    for i, (weight, bias) in enumerate(convolutions):
        found |= {f"convolutions.{i}.weight": weight, f"convolutions.{i}.bias": bias}
    return found
