"""The inspect stage: what a graph is made of, where its time goes, and which mode is advised for it."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from onnx import helper

from pipeline.cache.kinds import INSPECTIONS
from pipeline.cache.recall import Form, remembered, typed
from pipeline.config.choices import CalibrationKind
from pipeline.data.datasets import graph_inputs
from pipeline.graph.model_digest import digest_of
from pipeline.graph.shape_inference import inferred_types
from pipeline.graph.source_graph import SourceGraph
from pipeline.graph.subgraph_scopes import graphs_of
from pipeline.graph.value_info import dims_of, type_name
from pipeline.measure.ort_profile import NodeProfile, Profile, profile_ops_and_shapes
from pipeline.models.loop_settings import advice_on_states
from pipeline.models.onnx_file import OnnxFile
from pipeline.quantize.mode_advice import NOT_SURE, advise, spread_of
from pipeline.quantize.target import described, this_machine
from pipeline.record.results import Inspection, TensorShape
from pipeline.sample import Sample
from pipeline.stages.context import RunContext

log = logging.getLogger(__name__)

PROFILED = 6  # inferences: two halves of three, whose medians must agree


def run(context: RunContext) -> dict[str, Inspection]:
    """Inspect every graph that a mode applies to, on the sample of median size."""
    config = context.config
    found = {}
    for name, source in context.loaded.graphs.items():
        probe = context.evaluation_set.selection.probe(name)
        found[name] = _remembered(source, probe, config.calibration.kind, config.runtime.threads)
        adapter = context.loaded.adapter
        states = adapter.fed_back(source.model.graph)
        advice = advice_on_states(source, states) if isinstance(adapter, OnnxFile) and adapter.states != {} else []
        found[name] = replace(found[name], states=states, advice_on_states=advice)
        if found[name].advised_mode == NOT_SURE and not found[name].time_share:
            context.run_log.warn(f"{name}: {found[name].reasons[0]}")
    return found


def _remembered(source: SourceGraph, probe: Sample, calibration: CalibrationKind, threads: int) -> Inspection:
    """Return what is known of a graph; where its time goes is not measured twice, unless the machine was busy."""
    form = typed(Inspection)
    is_sure = Form[Inspection](
        lambda found: form.entry_of(found) if found.time_share and found.advised_mode != NOT_SURE else None, form.value_of
    )
    return remembered(
        INSPECTIONS,
        lambda: (source.sha256, digest_of(source.model), probe.id, probe.digest, calibration, threads),
        is_sure,
        lambda: inspect_graph(source, probe, calibration, threads),
    )


def inspect_graph(source: SourceGraph, probe: Sample, calibration: CalibrationKind, threads: int) -> Inspection:
    """Inspect one graph.

    Args:
        source: the graph.
        probe: a sample of typical length.
        calibration: where calibration data would come from: it decides what can be advised.
        threads: intra-op threads of the profile. Where it fails, what follows from it is left out, and the reason is given.
    """
    graph = source.model.graph
    ops = Counter(node.op_type for scope in graphs_of(graph) for node in scope.node)
    try:
        profile, shapes = profile_ops_and_shapes(source.path, probe, threads=threads, runs=PROFILED)
    except Exception as error:  # the graph runs, as its samples have shown: no fault of the profiler may end a run
        log.debug("the profile", exc_info=True)
        profile = shapes = Profile(ops={}, nodes=(), run_ms=0.0)
        why = " ".join(str(error).split()) or type(error).__name__
        advised, reasons = NOT_SURE, [f"where its time goes was not measured, so that no mode is advised: {why}"]
        node_macs, macs = {}, {}
    else:
        node_macs = _macs(graph, shapes.nodes)
        macs = _by_type(node_macs, shapes.nodes)
        advised, reasons = advise(macs, profile.ops, calibration, spread_of(profile.halves), parameters=_parameters(graph))
    return Inspection(
        inputs=[_describe(value) for value in graph_inputs(source)],
        outputs=_outputs(source),
        opset=source.opset,
        nodes=sum(ops.values()),
        ops=dict(ops.most_common()),
        parameters=_parameters(graph),
        macs=macs,
        time_share=profile.ops,
        probe=probe.id,
        advised_mode=advised,
        reasons=reasons,
        node_macs=node_macs,
        processor=described(this_machine()),
    )


def _parameters(graph: onnx.GraphProto) -> int:
    floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16, onnx.TensorProto.DOUBLE)
    return sum(int(np.prod(tensor.dims)) for tensor in graph.initializer if tensor.data_type in floats)


def _describe(value: onnx.ValueInfoProto) -> TensorShape:
    dims = dims_of(value)
    return TensorShape(value.name, type_name(value.type), None if dims is None else list(dims))


def _outputs(source: SourceGraph) -> list[TensorShape]:
    """Describe the outputs; what the graph does not declare of them is inferred, as ONNX Runtime does."""
    outputs = source.model.graph.output
    if all(value.type.WhichOneof("value") for value in outputs):
        return [_describe(value) for value in outputs]
    known = inferred_types(source.model)
    described = []
    for value in outputs:
        found = onnx.ValueInfoProto(name=value.name, type=value.type)
        if not value.type.WhichOneof("value") and value.name in known:
            found.type.tensor_type.CopyFrom(known[value.name])
        described.append(_describe(found))
    return described


def _macs(graph: onnx.GraphProto, profiled: Sequence[NodeProfile]) -> dict[str, int]:
    """Return multiply-accumulates by node, from the shapes that one inference had."""
    nodes = [node for scope in graphs_of(graph) for node in scope.node]
    attributes = {node.name: {a.name: helper.get_attribute_value(a) for a in node.attribute} for node in nodes}
    macs: Counter[str] = Counter()
    for node in profiled:
        macs[node.name] += round(node.calls * _macs_of(node, attributes.get(node.name, {})))
    return {name: count for name, count in macs.items() if count}


def _by_type(macs: Mapping[str, int], profiled: Sequence[NodeProfile]) -> dict[str, int]:
    """Return multiply-accumulates by operator type, most first."""
    types = {node.name: node.op_type for node in profiled}
    counts: Counter[str] = Counter()
    for name, count in macs.items():
        counts[types[name]] += count
    return dict(counts.most_common())


def _macs_of(node: NodeProfile, attributes: dict[str, Any]) -> int:
    inputs, outputs = node.input_shapes, node.output_shapes
    if len(inputs) < 2 or not outputs:
        return 0
    match node.op_type:
        case "Conv":  # weight (out, in / groups, *kernel): each output value sums over in / groups * kernel
            macs = np.prod(outputs[0]) * np.prod(inputs[1][1:])
        case "ConvTranspose":  # weight (in, out / groups, *kernel): each input value is spread over out / groups * kernel
            macs = np.prod(inputs[0]) * np.prod(inputs[1][1:])
        case "MatMul":
            macs = np.prod(outputs[0]) * inputs[0][-1]
        case "Gemm":
            macs = np.prod(outputs[0]) * inputs[0][0 if attributes.get("transA") else 1]
        case "LSTM" | "GRU" | "RNN":  # x (steps, batch, in), W (directions, gates * hidden, in), R (..., hidden)
            steps, batch = inputs[0][0], inputs[0][1]
            macs = steps * batch * (np.prod(inputs[1]) + np.prod(inputs[2]))
        case _:
            return 0
    return int(macs)
