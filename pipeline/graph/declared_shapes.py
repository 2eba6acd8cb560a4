"""Shapes that a graph declares and its operators contradict: ONNX Runtime goes by the operators, and so do we.

Exporters write them where a length was frozen while tracing, and tools that edit graphs leave old ones behind. A rewrite that
believed one would fold a length into a constant.
"""

from pathlib import Path

import onnx

from pipeline.graph.large_models import without_weights
from pipeline.outside_errors import unless_memory_is_used_up


def infer_file(path: Path) -> None:
    """Infer the shapes of a file, with and without those that it declares, for another process to see that it can be done."""
    model = onnx.load(path, load_external_data=False)
    drop_contradicted_shapes(model)
    onnx.shape_inference.infer_shapes(without_weights(model), data_prop=True)


def drop_contradicted_shapes(model: onnx.ModelProto) -> None:
    """Remove, in place, declared shapes of outputs and of tensors in between that differ from what the operators make.

    A size that the graph fixes is wrong too where the operators give the length of an input that is open.
    """
    declared = [value for value in (*model.graph.value_info, *model.graph.output) if value.type.tensor_type.HasField("shape")]
    if not declared:
        return
    bare = without_weights(model)
    del bare.graph.value_info[:]
    for output in bare.graph.output:
        output.type.tensor_type.ClearField("shape")
    try:
        inferred = onnx.shape_inference.infer_shapes(bare, data_prop=True).graph
    except Exception as error:  # whatever the inference cannot cope with says nothing about what is declared
        unless_memory_is_used_up(error)
        return
    made = {value.name: value.type.tensor_type for value in (*inferred.value_info, *inferred.output)}
    free = {dim.dim_param for value in model.graph.input for dim in value.type.tensor_type.shape.dim if dim.dim_param}
    for value in declared:
        shape, known = value.type.tensor_type.shape, made.get(value.name)
        if known is None or not known.HasField("shape"):
            continue
        if len(shape.dim) != len(known.shape.dim):
            value.type.tensor_type.ClearField("shape")
            continue
        for dim, true in zip(shape.dim, known.shape.dim, strict=True):
            differs = true.HasField("dim_value") and true.dim_value != dim.dim_value
            if dim.HasField("dim_value") and (differs or true.dim_param in free):
                dim.ClearField("dim_value")
