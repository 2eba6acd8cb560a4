"""Tensors that have no range, since they hold NaN or infinity on some sample though the outputs of the graph do not.

A row of attention that is masked entirely is NaN behind its Softmax; models zero it later. A scale that is found at run time
would be NaN for the whole tensor, and a range that is measured does not exist: what reads or makes such a tensor stays float.
"""

from collections.abc import Collection, Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

from pipeline.cache.entry_format import Entry
from pipeline.cache.kinds import INFINITE
from pipeline.cache.recall import Form, remembered
from pipeline.calibration.derived_tensors import constants_of, infer, masked_tensors
from pipeline.graph.model_digest import digest_of
from pipeline.graph.noise_inputs import with_noise_inputs
from pipeline.graph.session import infer as run
from pipeline.graph.session import inputs_for, open_session
from pipeline.graph.subgraph import upstream_of
from pipeline.graph.value_info import FLOAT_TYPES
from pipeline.sample import Sample, digests_of

SAMPLES = 32  # that are looked at, at most


def infinite_tensors(
    model: onnx.ModelProto, tensors: Collection[str], samples: Sequence[Sample], *, threads: int = 1, seed: int = 0
) -> dict[str, str]:
    """Return which tensors hold NaN or infinity on one of the first samples, each with the sample's id.

    Looks only where the graph, or an input, masks with minus infinity, or a constant holds NaN: elsewhere it is a fault of the
    sample or of an operator.

    Args:
        model: the graph.
        tensors: of its top-level graph.
        samples: inputs.
        threads: intra-op threads.
        seed: of the graph's noise.
    """

    def depends_on() -> tuple[object, ...]:
        return digest_of(model), sorted(tensors), digests_of(samples), threads, seed

    return remembered(INFINITE, depends_on, FORM, lambda: _looked_for(model, tensors, samples, threads, seed))


def _entry_of(found: dict[str, str]) -> Entry:
    return Entry([[tensor, sample] for tensor, sample in found.items()])


def _tensors_of(entry: Entry) -> dict[str, str]:
    return {str(tensor): str(sample) for tensor, sample in entry.facts}


FORM = Form(_entry_of, _tensors_of)


def _looked_for(
    model: onnx.ModelProto, tensors: Collection[str], samples: Sequence[Sample], threads: int, seed: int
) -> dict[str, str]:
    given = {value.name for value in model.graph.input}
    wanted = [name for name in tensors if name not in given]
    found = {
        name: sample.id
        for sample in reversed(samples)
        for name, array in sample.inputs.items()
        if name in tensors and array.dtype.kind == "f" and not np.isfinite(array).all()
    }
    masks = {name for sample in samples for name, array in sample.inputs.items() if _holds_infinity(array)}
    if not wanted or not (masked_tensors(model, masks) or _has_nan(model)):
        return found
    noisy = with_noise_inputs(model)
    types = infer(noisy.model)
    wanted = [name for name in wanted if name in types and types[name].elem_type in FLOAT_TYPES]
    probe = upstream_of(noisy.model, wanted)
    del probe.graph.output[:]
    for name in wanted:  # x - x is 0 for a number, NaN for all else; one number leaves the session, not the tensor
        probe.graph.node.append(helper.make_node("Sub", [name, name], [f"{name}/zero"]))
        probe.graph.node.append(helper.make_node("ReduceSum", [f"{name}/zero"], [f"{name}/sum"], keepdims=0))
        probe.graph.output.append(onnx.ValueInfoProto(name=f"{name}/sum"))
    if not wanted:
        return found
    session = open_session(probe, threads, optimization="basic")
    for number, sample in enumerate(samples[:SAMPLES]):
        feeds = {**sample.inputs, **noisy.noise(np.random.default_rng([seed, number]))}
        sums = run(session, Sample(sample.id, inputs_for(session, feeds)))
        for name in wanted:
            if name not in found and not np.isfinite(sums[f"{name}/sum"]):
                found[name] = sample.id
    return found


def _has_nan(model: onnx.ModelProto) -> bool:
    constants = (tensor for _, tensor in constants_of(model) if tensor.data_type in FLOAT_TYPES)
    return any(bool(np.isnan(numpy_helper.to_array(tensor)).any()) for tensor in constants)


def _holds_infinity(array: np.ndarray) -> bool:
    return array.dtype.kind == "f" and bool(np.isinf(array).any())
