"""Graphs above 2 GB, where a protobuf message ends: such a model cannot be serialized in memory.

Its weights are the large part. Code that needs the graph as one message gets a copy without their values; code that needs the
values gets a file with the weights beside it.
"""

import math
from collections.abc import Iterable
from pathlib import Path

import onnx
from google.protobuf.message import Message
from onnx import TensorProto, helper, numpy_helper

SERIALIZED_LIMIT_BYTES = 1_900_000_000  # leaves 5 % for the nodes
SMALL_BYTES = 1024  # shapes, axes and the like hold a few numbers
SHAPE_TYPES = frozenset({TensorProto.INT32, TensorProto.INT64})  # of constants whose values shape inference looks at
PAGE_BYTES = 4096  # large weights start at a page, so that ONNX Runtime can map the file into memory
PAGED_BYTES = 1 << 20  # and above; others would make the file larger


def bytes_of(tensor: TensorProto) -> int:
    """Return how many bytes the values of a constant take, whether the graph holds them or a file beside it."""
    if tensor.data_type in (TensorProto.UNDEFINED, TensorProto.STRING):
        return int(tensor.ByteSize())
    itemsize = helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    size: int = math.prod(tensor.dims, start=itemsize)
    return size


def is_large(model: onnx.ModelProto) -> bool:
    """Return whether a model cannot be serialized in memory."""
    held = (tensor for tensor in model.graph.initializer if tensor.data_location != TensorProto.EXTERNAL)
    return sum(bytes_of(tensor) for tensor in held) > SERIALIZED_LIMIT_BYTES


def byte_size(model: onnx.ModelProto) -> int:
    """Return the size of a model with its weights; above 2 GB, where protobuf gives up, that of its parts."""
    if not is_large(model):
        return int(model.ByteSize())
    weights = sum(bytes_of(tensor) for tensor in model.graph.initializer if _is_weight(tensor))
    return int(without_weights(model).ByteSize()) + weights


def without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy whose weights have a name, a type and a shape, but no values.

    Small constants and whole numbers keep theirs: they may be shapes.
    """
    bare = _without_initializers(model)
    bare.graph.initializer.extend(
        TensorProto(name=tensor.name, dims=tensor.dims, data_type=tensor.data_type) if _is_weight(tensor) else tensor
        for tensor in model.graph.initializer
    )
    return bare


def put_weights_back(bare: onnx.ModelProto, model: onnx.ModelProto) -> None:
    """Give the constants of a copy that `without_weights` made the values that they have in the model, in place."""
    values = {tensor.name: tensor for tensor in model.graph.initializer}
    found = [values.get(tensor.name, tensor) for tensor in bare.graph.initializer]
    del bare.graph.initializer[:]
    bare.graph.initializer.extend(found)


def save_with_external_data(model: onnx.ModelProto, path: Path) -> list[Path]:
    """Write a model, and its weights into a file beside it, and return the files, the model first.

    Files of these names are replaced. The model is not changed, and its weights are not copied; `onnx.save_model` takes them
    out of the model that it writes, refuses to write where the *current* directory has a file of the same name, and lets only
    the owner read the weights.
    """
    data = path.with_name(f"{path.name}.data")
    light = _without_initializers(model)
    with data.open("wb") as file:
        for tensor in model.graph.initializer:
            if not _is_weight(tensor):
                light.graph.initializer.append(tensor)
                continue
            raw = tensor if tensor.HasField("raw_data") else numpy_helper.from_array(numpy_helper.to_array(tensor))
            if len(raw.raw_data) >= PAGED_BYTES:
                file.seek(-file.tell() % PAGE_BYTES, 1)
            place = light.graph.initializer.add(name=tensor.name, dims=tensor.dims, data_type=tensor.data_type)
            place.data_location = TensorProto.EXTERNAL
            for key, value in (("location", data.name), ("offset", file.tell()), ("length", len(raw.raw_data))):
                place.external_data.add(key=key, value=str(value))
            file.write(raw.raw_data)
        held = file.tell()
    path.write_bytes(light.SerializeToString())
    if held:
        return [path, data]
    data.unlink()
    return [path]


def _is_weight(tensor: TensorProto) -> bool:
    """Return whether the values of a constant are large and decide no shape."""
    inside = tensor.data_location != TensorProto.EXTERNAL
    return inside and tensor.data_type not in (TensorProto.STRING, *SHAPE_TYPES) and bytes_of(tensor) >= SMALL_BYTES


def _without_initializers(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    _copy_fields(model, copy, ("graph",))
    _copy_fields(model.graph, copy.graph, ("initializer",))
    return copy


def _copy_fields(source: Message, target: Message, but: Iterable[str]) -> None:
    """Copy all fields of a message that are set, but the named ones."""
    for field, value in source.ListFields():
        if field.name in but:
            continue
        if isinstance(value, Message):
            getattr(target, field.name).CopyFrom(value)
        elif isinstance(value, str | bytes | int | float):
            setattr(target, field.name, value)
        else:
            getattr(target, field.name).extend(value)
