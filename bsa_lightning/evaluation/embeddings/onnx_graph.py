"""The weights of ONNX graphs, read as data: nothing of a graph is run."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bsa_lightning.evaluation.embeddings.published_weights import OtherWeightsError

Array = NDArray[Any]
Message = Any  # the classes of messages are made while the program runs

_TYPES = {1: "f4", 2: "u1", 3: "i1", 4: "u2", 5: "i2", 6: "i4", 7: "i8", 10: "f2", 11: "f8"}
"""numpy's types by the number of ONNX's."""
_EXTERNAL = 1


class Graph:
    """A graph of an ONNX file, whose numbers may be in a second file of the same folder.

    Args:
        path: the file.

    Raises:
        Exception: of any kind, if the file is not ONNX.
    """

    def __init__(self, path: Path) -> None:
        model = _model_class()()
        model.ParseFromString(path.read_bytes())
        self._folder = path.parent
        self._nodes = list(model.graph.node)
        self._tensors = {tensor.name: tensor for tensor in model.graph.initializer}
        self._makers = {name: node for node in self._nodes for name in node.output}
        self._takers: dict[str, list[Message]] = {}
        for node in self._nodes:
            for name in node.input:
                self._takers.setdefault(name, []).append(node)
        if not self._nodes:
            raise OtherWeightsError("it has no nodes")

    def data_files(self) -> list[Path]:
        """Returns the further files that hold numbers of this graph, in alphabetical order."""
        return sorted({self._data_file(tensor) for tensor in self._tensors.values() if _is_elsewhere(tensor)})

    def convolutions(self) -> Iterator[tuple[Array, Array]]:
        """Yields weight (out, in, height, width) and bias (out,) of each convolution, with batch norms in them."""
        for node in self._nodes:
            if node.op_type == "Conv" and (weight := self._value(node.input[1])) is not None and weight.ndim == 4:
                yield self._with_what_follows(node, weight.astype(np.float64))

    def linear_layers(self) -> Iterator[tuple[Array, Array]]:
        """Yields weight (out, in) and bias (out,) of each product with a matrix of weights."""
        for node in self._nodes:
            if node.op_type not in ("Gemm", "MatMul") or (weight := self._value(node.input[1])) is None:
                continue
            if weight.ndim == 2:
                is_out_first = node.op_type == "Gemm" and _attribute(node, "transB", 0)
                yield self._with_what_follows(node, (weight if is_out_first else weight.T).astype(np.float64))

    def _with_what_follows(self, node: Message, weight: Array) -> tuple[Array, Array]:
        """Returns weight and bias of a layer, with the batch norm, factors and summands that follow it."""
        bias = self._value(node.input[2]) if len(node.input) > 2 else None
        bias = np.zeros(len(weight)) if bias is None else bias.astype(np.float64)
        columns = (-1, *[1] * (weight.ndim - 1))
        while len(takers := self._takers.get(node.output[0], [])) == 1:
            node = takers[0]
            affine = self._affine(node, len(weight))
            if affine is None:
                break
            scale, shift = affine
            weight, bias = weight * scale.reshape(columns), bias * scale + shift
        return weight, bias

    def _affine(self, node: Message, width: int) -> tuple[Array, Array] | None:
        """Returns the factor and the summand of each channel that a node applies; ``None`` for any other node."""
        if node.op_type == "BatchNormalization":
            gamma, beta, mean, variance = (self._number(name) for name in node.input[1:5])
            scale = gamma / np.sqrt(variance + _attribute(node, "epsilon", 1e-5))
            return scale, beta - mean * scale
        if node.op_type not in ("Add", "Mul"):
            return None
        known = [value for name in node.input if (value := self._value(name)) is not None]
        if len(known) != 1 or known[0].size not in (1, width):
            return None
        values = np.broadcast_to(known[0].astype(np.float64).ravel(), (width,))
        return (np.ones(width), values) if node.op_type == "Add" else (values, np.zeros(width))

    def _number(self, name: str) -> Array:
        value = self._value(name)
        if value is None:
            raise OtherWeightsError(f"its {name} is not a number that is stored")
        return value.astype(np.float64)

    def _value(self, name: str) -> Array | None:
        """Returns the numbers of this name; ``None`` if they depend on the input."""
        if name in self._tensors:
            return self._array(self._tensors[name])
        node = self._makers.get(name)
        if node is None:
            return None
        if node.op_type == "Constant":
            return next((self._array(each.t) for each in node.attribute if each.name == "value"), None)
        value = self._value(node.input[0]) if node.op_type in _PASSED else None
        return None if value is None else self._passed(node, value)

    def _passed(self, node: Message, value: Array) -> Array:
        """Returns what a node makes of stored numbers."""
        if node.op_type == "Transpose":
            order = next((list(each.ints) for each in node.attribute if each.name == "perm"), None)
            return value.transpose(order)
        if node.op_type == "Reshape":
            return value.reshape([int(size) for size in self._number(node.input[1])])
        if node.op_type == "DequantizeLinear" and value.dtype.kind in "iu":
            zero = self._number(node.input[2]) if len(node.input) > 2 else np.zeros(())
            axis = int(_attribute(node, "axis", 1))
            along = [1] * value.ndim
            along[axis] = -1
            scale = self._number(node.input[1])
            shape = along if scale.ndim else []
            return (value - (zero.reshape(shape) if zero.ndim else zero)) * scale.reshape(shape)
        return value  # rounding by QuantizeLinear is for integer arithmetic

    def _array(self, tensor: Message) -> Array:
        if tensor.data_type not in _TYPES:
            raise OtherWeightsError(f"its {tensor.name} has a type of numbers that is not read")
        dtype = np.dtype(_TYPES[tensor.data_type]).newbyteorder("<")
        if _is_elsewhere(tensor):
            entries = {entry.key: entry.value for entry in tensor.external_data}
            with self._data_file(tensor).open("rb") as file:
                file.seek(int(entries.get("offset", 0)))
                array = np.frombuffer(file.read(int(np.prod(tensor.dims)) * dtype.itemsize), dtype)
        elif tensor.raw_data:
            array = np.frombuffer(tensor.raw_data, dtype)
        else:
            fields = (tensor.float_data, tensor.double_data, tensor.int64_data, tensor.int32_data)
            numbers = next((list(field) for field in fields if len(field)), [])
            # The 16 bits of a half-precision number are kept as an integer.
            array = np.array(numbers, "<u2").view(dtype) if dtype == np.float16 else np.array(numbers, dtype)
        return array.reshape(list(tensor.dims))

    def _data_file(self, tensor: Message) -> Path:
        name = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
        path = self._folder / name
        if Path(name).name != name or not path.is_file():
            raise OtherWeightsError(f'its numbers are in "{name}", which is not a file beside it')
        return path


_PASSED = ("Identity", "Cast", "QuantizeLinear", "DequantizeLinear", "Transpose", "Reshape")
"""The operators through which weights are followed."""


def _is_elsewhere(tensor: Message) -> bool:
    return bool(tensor.data_location == _EXTERNAL)


def _attribute(node: Message, name: str, default: float) -> float:
    """Returns a number among a node's attributes."""
    for each in node.attribute:
        if each.name == name:
            return float(each.f if isinstance(default, float) else each.i)
    return default


@cache
def _model_class() -> Message:
    """Returns the class of ONNX's files, with the fields that are read; protobuf passes over all others."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name="bsa_lightning/onnx.proto", package=_PACKAGE, syntax="proto3")
    for message, fields in _MESSAGES.items():
        described = file.message_type.add(name=message)
        for name, (number, starred) in fields.items():
            kind = starred.rstrip("*")
            field = described.field.add(name=name, number=number, label=1 if kind == starred else 3)
            if kind in _MESSAGES:
                field.type, field.type_name = field.TYPE_MESSAGE, f".{_PACKAGE}.{kind}"
            else:
                field.type = getattr(field, f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.Model"))


_PACKAGE = "bsa_lightning_onnx"
_MESSAGES = {
    "Model": {"graph": (7, "Graph")},
    "Graph": {"node": (1, "Node*"), "initializer": (5, "Tensor*")},
    "Node": {
        "input": (1, "string*"),
        "output": (2, "string*"),
        "op_type": (4, "string"),
        "attribute": (5, "Attribute*"),
    },
    "Attribute": {
        "name": (1, "string"),
        "f": (2, "float"),
        "i": (3, "int64"),
        "t": (5, "Tensor"),
        "ints": (8, "int64*"),
    },
    "Tensor": {
        "dims": (1, "int64*"),
        "data_type": (2, "int32"),
        "float_data": (4, "float*"),
        "int32_data": (5, "int32*"),
        "int64_data": (7, "int64*"),
        "name": (8, "string"),
        "raw_data": (9, "bytes"),
        "double_data": (10, "double*"),
        "external_data": (13, "Entry*"),
        "data_location": (14, "int32"),
    },
    "Entry": {"key": (1, "string"), "value": (2, "string")},
}
"""The fields of ONNX's messages that are read: their numbers, and their types, with a star where there are many."""
