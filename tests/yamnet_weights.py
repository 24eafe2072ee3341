"""Random weights of YAMNet, and files of them in the formats of Keras and of ONNX, written without either."""

import struct
from itertools import pairwise

import numpy as np

WIDTHS = [32, 64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024]
EPSILON = 1e-4


def layers():
    """The names of the convolutions, from the first to the last."""
    return ["layer1/conv"] + [f"layer{i}/{kind}_conv" for i in range(2, 15) for kind in ("depthwise", "pointwise")]


def yamnet_weights(seed=0):
    """By Keras' names: kernels are (height, width, in, out), and norms have no factor."""
    generator = np.random.default_rng(seed)
    weights, inside = {}, 1
    outsides = [32, *(width for each in pairwise(WIDTHS) for width in each)]
    for layer, outside in zip(layers(), outsides, strict=True):
        is_depthwise = "depthwise" in layer
        shape = (3, 3, outside, 1) if is_depthwise else (1, 1, inside, outside) if "point" in layer else (3, 3, 1, 32)
        fan_in = 9 if is_depthwise else inside * shape[0] ** 2
        kernel = "depthwise_kernel" if is_depthwise else "kernel"
        weights[f"{layer}/{kernel}"] = generator.normal(size=shape) * np.sqrt(2 / fan_in)
        weights[f"{layer}/bn/beta"] = 0.1 * generator.normal(size=outside)
        weights[f"{layer}/bn/moving_mean"] = 0.1 * generator.normal(size=outside)
        weights[f"{layer}/bn/moving_variance"] = 0.7 + 0.4 * generator.random(outside)
        inside = outside
    weights["dense/kernel"] = generator.normal(size=(1024, 521)) / 4
    weights["dense/bias"] = generator.normal(size=521)
    return {name: array.astype(np.float32) for name, array in weights.items()}


def write_keras(path, weights, *, inside="", dense="dense"):
    """As Keras' ``save_weights`` does, or ``save`` with ``inside="model_weights/"``, beside an optimizer's numbers."""
    import h5py

    with h5py.File(path, "w") as file:
        for ours, array in weights.items():
            name = ours.replace("dense", dense)
            file[f"{inside}{name.rpartition('/')[0]}/{name}:0"] = array
            if inside:
                file[f"optimizer_weights/training/{name}:0"] = 0 * array


def write_onnx(path, weights, *, style="folded"):
    """As converters do.

    "folded": norms in the kernels; "norms": as nodes, numbers not as bytes, the matrix as ``MatMul`` and ``Add``;
    "factors": as ``Mul`` and ``Add``; "halves": as "folded", in half precision and not as bytes; "integers": 8-bit
    kernels, and all numbers in a second file.
    """
    tensors, nodes = (
        _Tensors(
            path if style == "integers" else None, as_bytes=style not in ("norms", "halves"), is_half=style == "halves"
        ),
        [],
    )
    for i, layer in enumerate(layers()):
        kernel = weights[f"{layer}/{'depthwise_kernel' if 'depthwise' in layer else 'kernel'}"]
        kernel = np.transpose(kernel, (2, 3, 0, 1) if "depthwise" in layer else (3, 2, 0, 1))
        beta, mean, variance = (weights[f"{layer}/bn/{part}"] for part in ("beta", "moving_mean", "moving_variance"))
        scale = 1 / np.sqrt(variance + EPSILON)
        shift = beta - mean * scale
        names = [f"x{i}", f"w{i}"]
        if style in ("folded", "halves", "integers"):
            kernel = kernel * scale[:, None, None, None]
            names.append(tensors.add(f"b{i}", shift))
        if style == "integers":
            step = np.abs(kernel).max((1, 2, 3)) / 127
            quantised = np.round(kernel / step[:, None, None, None]).astype(np.int8)
            stored = [tensors.add(f"q{i}", quantised), tensors.add(f"s{i}", step), tensors.add(f"z{i}", 0 * step, "i1")]
            nodes.append(_node("DequantizeLinear", stored, f"w{i}", axis=0))
        else:
            tensors.add(f"w{i}", kernel)
        nodes.append(_node("Conv", names, f"c{i}"))
        if style == "norms":
            parts = {"gamma": np.ones_like(beta), "beta": beta, "mean": mean, "variance": variance}
            stored = [tensors.add(f"{part}{i}", value) for part, value in parts.items()]
            nodes.append(_node("BatchNormalization", [f"c{i}", *stored], f"n{i}", epsilon=EPSILON))
        elif style == "factors":
            stored = [tensors.add(name, value[:, None, None]) for name, value in ((f"m{i}", scale), (f"a{i}", shift))]
            nodes += [_node("Mul", [f"c{i}", stored[0]], f"d{i}"), _node("Add", [stored[1], f"d{i}"], f"n{i}")]
        nodes.append(_node("Relu", [f"{'n' if style in ('norms', 'factors') else 'c'}{i}"], f"x{i + 1}"))
    matrix, bias = weights["dense/kernel"], tensors.add("bias", weights["dense/bias"])
    nodes.append(_node("GlobalAveragePool", ["x27"], "rows"))
    if style == "norms":
        nodes += [_node("MatMul", ["rows", tensors.add("matrix", matrix)], "product")]
        nodes += [_node("Add", ["product", bias], "scores")]
    else:
        nodes.append(_node("Gemm", ["rows", tensors.add("matrix", matrix.T), bias], "scores", transB=1))
    graph = b"".join(_field(1, node) for node in nodes) + b"".join(_field(5, tensor) for tensor in tensors.made)
    path.write_bytes(_field(1, 8) + _field(2, b"test") + _field(7, graph))


class _Tensors:
    def __init__(self, path, *, as_bytes, is_half):
        self.made, self.path, self.as_bytes, self.is_half = [], path, as_bytes, is_half
        if path is not None:
            path.with_suffix(".data").write_bytes(b"")

    def add(self, name, array, dtype=None):
        array = np.ascontiguousarray(array, dtype or ("i1" if array.dtype == np.int8 else "f4"))
        message = b"".join(_field(1, size) for size in array.shape) + _field(8, name.encode())
        message += _field(2, 10 if self.is_half else 3 if array.dtype == np.int8 else 1)
        if self.path is not None:
            data = self.path.with_suffix(".data")
            place = {"location": data.name, "offset": str(data.stat().st_size), "length": str(array.nbytes)}
            with data.open("ab") as file:
                file.write(array.tobytes())
            for key, value in place.items():
                message += _field(13, _field(1, key.encode()) + _field(2, value.encode()))
            message += _field(14, 1)
        elif self.as_bytes:
            message += _field(9, array.tobytes())
        elif self.is_half:
            bits = array.astype("<f2").view("<u2")
            message += _field(5, b"".join(_varint(int(number)) for number in bits.flatten()))  # packed, as integers
        else:
            message += _field(4, array.tobytes())  # packed floats
        self.made.append(message)
        return name


def _node(kind, inputs, output, **attributes):
    message = b"".join(_field(1, name.encode()) for name in inputs) + _field(2, output.encode())
    message += _field(4, kind.encode())
    for name, value in attributes.items():
        message += _field(5, _field(1, name.encode()) + _field(2 if isinstance(value, float) else 3, value))
    return message


def _field(number, value):
    """A field of protobuf's wire format."""
    if isinstance(value, bytes):
        return _varint(8 * number + 2) + _varint(len(value)) + value
    if isinstance(value, float):
        return _varint(8 * number + 5) + struct.pack("<f", value)
    return _varint(8 * number) + _varint(value)


def _varint(value):
    parts = []
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    return bytes([*parts, value])
