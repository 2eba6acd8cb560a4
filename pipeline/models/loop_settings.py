"""The settings of a streaming model against its graph: what is fed back, what it starts from, how sequences are cut."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx

from pipeline.errors import DataError, ModelError, did_you_mean
from pipeline.graph.source_graph import SourceGraph
from pipeline.graph.states import state_like, states_of
from pipeline.graph.value_info import dims_of, dtype_of, type_name
from pipeline.models.state_loop import Cut, Dims, StateLoop
from pipeline.paths import resolve_path
from pipeline.sample import Array

FEWEST_SAMPLES = 64  # of audio that a step takes; fewer positions are frames


def loop_of(name: str, source: SourceGraph, states: Mapping[str, str] | None, initial: str | None, cut: Cut) -> StateLoop:
    """Return how a graph is run over sequences.

    Args:
        name: of the graph.
        source: the graph.
        states: output -> the input that it becomes; None: what is found.
        initial: an .npz of what states start from; None: zeros.
        cut: as it was set; an empty input is the first one that is no state.

    Raises:
        ModelError: a name does not exist, or types or shapes do not fit.
        DataError: `initial` cannot be used.
    """
    graph = source.model.graph
    fed_back = states_of(graph) if states is None else check_states(graph, states)
    inputs = {value.name: value for value in graph.input if value.type.tensor_type.elem_type}
    free = [value.name for value in graph.input if value.name not in {*fed_back.values(), *source.fixed, *source.defaults}]
    if cut.input and (cut.input not in inputs or cut.input in fed_back.values()):
        why = "is a state" if cut.input in inputs else "does not exist"
        raise ModelError(f"model.chunk_input: the input {cut.input!r} {why}.{did_you_mean(cut.input, free)}")
    for key, value in (("chunk", cut.chunk), ("hop", cut.hop)):
        if value is not None and value < 1:
            raise ModelError(f"model.{key}: {value} is out of limits; allowed: null or at least 1.")
    if initial is not None and not fed_back:
        raise ModelError("model.initial_states: nothing is fed back, so that no state starts from anything. Set model.states.")
    cut = replace(cut, input=cut.input or (free[0] if free else ""))
    return StateLoop(
        name,
        {value.name: _declared(value) for value in inputs.values()},
        fed_back,
        {value.name: dtype_of(value) for value in inputs.values()},
        _checked(cut, _declared(inputs[cut.input]) if cut.input in inputs else None),
        _initial(initial, {given: inputs[given] for given in fed_back.values()}) if initial is not None else {},
    )


def advice_on_states(source: SourceGraph, states: Mapping[str, str]) -> list[str]:
    """Return what a user of a streaming model sets and gives, a sentence each; none where nothing is fed back.

    Args:
        source: the graph.
        states: output -> the input that it becomes.
    """
    graph = source.model.graph
    unclear = [f"{name} (by {' or '.join(outputs)})" for name, outputs in state_like(graph, states).items()]
    if not states:
        unsure = f"inputs that look like states, and the outputs that may feed them: {', '.join(unclear)}; if they are, set "
        return [f"{unsure}'model.states={{<output>: <input>}}'"] if unclear else []
    heard = loop_of("", source, states, None, Cut("")).cut.input
    setting = ", ".join(f"{_escaped(output)}: {_escaped(given)}" for output, given in states.items())
    found = [f"its states go from step to step: 'model.states={{{setting}}}' ('model.states={{}}': none do)"]
    dims = next((_declared(value) for value in source.model.graph.input if value.name == heard), None)
    if dims is not None:
        shape, known = _shape(["steps", *dims]), all(isinstance(size, int) for size in dims[1:])  # the first is the batch
        cut = f"{heard} longer than {_shape(dims)}, which is cut" if known else f"model.chunk=<what a step takes> for {heard}"
        found.append(
            f"calibrate and evaluate on whole sequences, without the states: arrays <sequence>/{heard} of shape {shape}, or "
            f"{cut}; see docs/streaming.md"
        )
    return found


def _escaped(name: str) -> str:
    """Return a name as the grammar of settings takes it inside of braces."""
    return re.sub(r"([\\()\[\]{}:=, ])", r"\\\1", name)


def _shape(dims: Sequence[int | str | None]) -> str:
    return f"({', '.join('?' if size is None else str(size) for size in dims)})"


def step_seconds(model: onnx.ModelProto, loop: StateLoop, fixed: Mapping[str, float]) -> float | None:
    """Return how much audio a step takes, where hop and sample rate are known.

    Positions are frames where metadata has a `hop_length`, else samples where an input of one or two axes is cut by so many
    that they cannot be frames.

    Args:
        model: its metadata may hold `sample_rate` and `hop_length`.
        loop: how sequences are cut.
        fixed: inputs that are always the same: `sr` or `sample_rate` is the sample rate.
    """
    if not loop.states and not loop.cut.is_asked_for:
        return None  # a call takes all of a sequence
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    dims = loop.declared.get(loop.cut.input) or ()
    frames = [axis for axis, size in enumerate(dims) if axis and size == 1]
    hop = loop.cut.hop or loop.cut.chunk or _only([size for size in dims if isinstance(size, int) and size >= FEWEST_SAMPLES])
    try:
        rate = float(metadata.get("sample_rate") or fixed.get("sr") or fixed["sample_rate"])
        if "hop_length" not in metadata:
            return hop / rate if hop is not None and hop >= FEWEST_SAMPLES and len(dims) <= 2 else None
        positions = loop.cut.hop or loop.cut.chunk or (1 if len(frames) == 1 and len(dims) > 2 else None)
        return None if positions is None else positions * float(metadata["hop_length"]) / rate
    except (KeyError, ValueError, ZeroDivisionError):
        return None


def _only(sizes: Sequence[int]) -> int | None:
    return sizes[0] if len(sizes) == 1 else None


def check_states(graph: onnx.GraphProto, states: Mapping[str, str]) -> dict[str, str]:
    """Return states as they were set, once they fit the graph.

    Raises:
        ModelError: an output or input does not exist, or occurs twice, or their types or shapes differ.
    """
    outputs, inputs = ({value.name: value for value in values} for values in (graph.output, graph.input))
    for output, given in states.items():
        if output not in outputs:
            raise ModelError(f"model.states: the graph has no output {output!r}.{did_you_mean(output, outputs)}")
        if given not in inputs:
            raise ModelError(f"model.states.{output}: the graph has no input {given!r}.{did_you_mean(given, inputs)}")
        made, taken = outputs[output], inputs[given]
        types = [value.type.tensor_type.elem_type for value in (made, taken)]
        if types[0] and types[0] != types[1]:
            raise ModelError(
                f"model.states.{output}: the output is {type_name(made.type)}, but the input {given!r} takes "
                f"{type_name(taken.type)}."
            )
        shapes = [dims_of(value) for value in (made, taken)]
        if not _fit(*shapes):
            raise ModelError(f"model.states.{output}: the output is of shape {shapes[0]}, but {given!r} takes {shapes[1]}.")
    if twice := sorted({given for given in states.values() if list(states.values()).count(given) > 1}):
        raise ModelError(f"model.states: two outputs become the input {twice[0]!r}; each input is fed from one.")
    return dict(states)


def _fit(made: list[int | None] | None, taken: list[int | None] | None) -> bool:
    if made is None or taken is None:
        return True
    return len(made) == len(taken) and all(None in pair or pair[0] == pair[1] for pair in zip(made, taken, strict=True))


def _declared(value: onnx.ValueInfoProto) -> Dims:
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return [dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None for dim in tensor.shape.dim]


def _checked(cut: Cut, dims: Dims) -> Cut:
    if cut.chunk is not None and cut.hop is not None and cut.hop > cut.chunk:
        raise ModelError(f"model.hop: {cut.hop} is more than model.chunk={cut.chunk}: what lies between would never be read.")
    if cut.axis is None or dims is None:
        return cut
    if not -len(dims) <= cut.axis < len(dims):
        raise ModelError(f"model.chunk_axis: {cut.axis}, but {cut.input!r} has {len(dims)} axes.")
    size = dims[cut.axis]
    if isinstance(size, int) and cut.chunk not in (None, size):
        raise ModelError(f"model.chunk: {cut.chunk}, but the graph takes {size} along axis {cut.axis} of {cut.input!r}.")
    return cut


def _initial(path: str, states: Mapping[str, onnx.ValueInfoProto]) -> dict[str, Array]:
    file, key = Path(resolve_path(path)), "model.initial_states"
    try:
        with np.load(file, allow_pickle=False) as arrays:
            found: dict[str, Array] = {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, EOFError, AttributeError) as error:
        raise DataError(f"{key}: {file} is not an .npz that numpy reads ({error}).") from error
    for name, array in found.items():
        if name not in states:
            raise DataError(f"{key}: {file}: {name!r} is no state of the model.{did_you_mean(name, states)}")
        dtype, dims = dtype_of(states[name]), dims_of(states[name])
        if array.dtype != dtype or not _fit(list(array.shape), dims):
            raise DataError(
                f"{key}: {file}: {name!r} is {array.dtype} of shape {list(array.shape)}, but the model takes {dtype} {dims}."
            )
    return found
