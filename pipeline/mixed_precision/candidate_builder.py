"""From a choice of precisions to a quantized graph, fast enough to be asked for a hundred of them.

What does not depend on the choice is done once: equalisation, smoothing and the statistics of all tensors, the ranges that
follow, the rounding of each weight. A choice then costs one copy of the graph and one rewrite, both linear in its size.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import onnx

from pipeline.calibration.channel_pairs import Reach
from pipeline.calibration.statistics import Statistics
from pipeline.config.choices import ModeKind, RangeMethod
from pipeline.config.mode_settings import AutoConfig, StaticConfig, with_settings_of
from pipeline.graph.model_digest import digest_of
from pipeline.graph.prepare import initializers_of
from pipeline.graph.subgraph_scopes import graphs_of
from pipeline.mixed_precision.precision_groups import Choice, Group, in_integers, plan_of
from pipeline.ptq.activation_pairs import looks_at_pairs, reaches_of, weight_grids
from pipeline.ptq.bias_correction import correct_biases
from pipeline.ptq.cross_layer_equalization import equalize
from pipeline.ptq.gptq import round_weights
from pipeline.ptq.own_weights import separate_weights
from pipeline.ptq.smooth_quant import smooth_quant
from pipeline.quantize.calibrated_ranges import ranges_from
from pipeline.quantize.plan import Plan, Precision
from pipeline.quantize.qparams import QuantParams
from pipeline.quantize.silent_tensors import nodes_touching
from pipeline.quantize.static import Ranges, pair_settings, quantize_static, tensors_to_calibrate
from pipeline.quantize.static_matmul_scales import fix_scales, tensors_with_scales_at_run_time
from pipeline.sample import Sample, digests_of

PRODUCTS = frozenset({"MatMul", "Gemm"})
MOST_BYTES = 0.8  # of what can be stored as int8: small weights are those of narrow layers, which gain most in other layouts

Measured = Callable[[onnx.ModelProto], Statistics]
"""The prepared graph -> what calibration sees of its tensors."""


class Builder:
    """Makes quantized graphs of one float graph.

    Attributes:
        model: the float graph, equalised and smoothed; computes what the one given does.
        groups: what is decided together.
        rounding: whether `build` rounds weights where it is not told; that takes as long as calibration for the first graph.
        silent: nodes that get no static ranges -> the tensor that was zero in all of calibration.

    Args:
        model: the prepared float graph; it is not changed.
        groups: what is decided together.
        static: types, and how ranges follow; its method may be changed with `use`.
        samples: calibration data.
        measured: collects the statistics.
        threads: of ONNX Runtime.
        seed: of the graph's own noise.
        pairs: whether weights may rest on what two activations were together (`pipeline.ptq.activation_pairs`).
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        groups: Sequence[Group],
        static: StaticConfig,
        samples: Sequence[Sample],
        measured: Measured,
        *,
        threads: int,
        seed: int = 0,
        pairs: bool = True,
    ) -> None:
        self._static, self._samples, self._threads, self._seed = static, samples, threads, seed
        self._paired = pairs and looks_at_pairs(static)
        self._reaches: dict[str, Reach] | None = None
        self._grids: dict[str, QuantParams] | None = None
        everything = plan_of(groups, most_integer(groups))
        levelled = equalize(model, everything, samples, threads=threads)
        self.model = smooth_quant(levelled, everything, samples, threads=threads)
        self._statistics = measured(self.model)
        self.silent: dict[str, str] = {}
        self.rounding = True
        self.groups = tuple(self._with_ranges(groups, everything))
        self._ranges: dict[str, tuple[float, float]] = {}
        self._rounded: dict[str, onnx.TensorProto] | None = None

    @property
    def samples(self) -> Sequence[Sample]:
        """Calibration data."""
        return self._samples

    @property
    def identity(self) -> tuple[object, ...]:
        """What the graph of a choice depends on: the float graph, what it was calibrated on, and how."""
        calibrated_on = digests_of(self._samples)
        return digest_of(self.model), self.groups, self._static, calibrated_on, self.rounding, self._threads

    @property
    def static(self) -> StaticConfig:
        """The settings that graphs are made with."""
        return self._static

    def _with_ranges(self, groups: Sequence[Group], everything: Plan) -> list[Group]:
        """Return the groups without integers for tensors that were zero in all of calibration: no range of them is known."""
        tensors = tensors_to_calibrate(self.model, everything, self._static)
        silent = {name for name in tensors if self._statistics[name].low == 0 == self._statistics[name].high}
        if not silent:
            return list(groups)
        nodes = everything.nodes(Precision.static_int8)
        self.silent = nodes_touching(self.model, nodes, pair_settings(self._static), silent)
        found = []
        for group in groups:
            static = self.silent.keys().isdisjoint(group.nodes)
            left = tuple(p for p in group.precisions if static or p is not Precision.static_int8)
            found += [replace(group, precisions=left)] if left else []
        return found

    def use(self, method: RangeMethod, percentile: float) -> None:
        """Take ranges by a method from now on; the percentile is of the method of that name."""
        if (method, percentile) == (self._static.method, self._static.percentile):
            return
        self._static = replace(self._static, method=method, percentile=percentile)
        self._ranges, self._rounded, self._grids = {}, None, None

    def build(
        self,
        choice: Choice,
        *,
        of: onnx.ModelProto | None = None,
        rounding: bool | None = None,
        bias_correction: bool = False,
        fixed_scales: bool = False,
        stored: bool = True,
    ) -> onnx.ModelProto:
        """Return the quantized graph of a choice; of none, a copy of the float graph.

        Args:
            choice: which group becomes what.
            of: a part of the float graph, with some nodes of these groups; None: all of it.
            rounding: with weights that keep the outputs of their nodes, not each rounded to the nearest integer; None: as
                `rounding` of this builder says.
            bias_correction: with biases that take back what quantization adds to the mean of each channel.
            fixed_scales: with scales from calibration for products of matrices, which otherwise have dynamic ranges.
            stored: whether weights of what computes in float are stored as the choice says; else they stay constants of float,
                which layouts can rearrange.

        Raises:
            StageError: a node cannot be quantized after all; names it.
        """
        model, plan = (
            self.fitted(choice, of=of, rounding=rounding, bias_correction=bias_correction),
            self._plan(choice if stored else in_integers(choice), of),
        )
        if not plan.precisions:
            return model
        quantized = quantize_static(model, plan, self._static, self._ranges_of(model, plan))
        if not fixed_scales:
            return quantized
        seen = [tensor for tensor in tensors_with_scales_at_run_time(quantized) if tensor in self._statistics]
        whole = replace(self._static, method=RangeMethod.minmax)  # as with a dynamic range: nothing is clipped
        return fix_scales(quantized, ranges_from(self._statistics, seen, whole))

    def fitted(
        self,
        choice: Choice,
        *,
        of: onnx.ModelProto | None = None,
        rounding: bool | None = None,
        bias_correction: bool = False,
    ) -> onnx.ModelProto:
        """Return the float graph that `build` writes the quantized graph of a choice from: with its weights and biases."""
        plan = self._plan(choice, of)
        model = onnx.ModelProto()
        model.CopyFrom(of or self.model)
        if not plan.precisions:
            return model
        ranges = self._ranges_of(model, plan)
        if self.rounding if rounding is None else rounding:
            finer = {name for name, precision in choice.items() if precision is Precision.weight_int16}
            self._round(model, [group for group in self.groups if group.name in choice.keys() - finer])
        if not bias_correction:
            return model
        return correct_biases(model, plan, self._static, ranges, self._samples, reference=self.model, threads=self._threads)

    def _plan(self, choice: Choice, of: onnx.ModelProto | None) -> Plan:
        """Return the plan of a choice, for a part of the graph only what it holds."""
        plan = plan_of(self.groups, choice)
        if of is not None:
            inside = {node.name for scope in graphs_of(of.graph) for node in scope.node}
            plan.precisions = {name: precision for name, precision in plan.precisions.items() if name in inside}
        return plan

    def quantized_alone(self, model: onnx.ModelProto, node: str, precision: Precision) -> onnx.ModelProto:
        """Return the quantized form of one node that was cut out of the float graph; `model` is not changed."""
        plan = Plan({node: precision})
        cut = onnx.ModelProto()
        cut.CopyFrom(model)
        return quantize_static(cut, plan, self._static, self._ranges_of(cut, plan))

    def _ranges_of(self, model: onnx.ModelProto, plan: Plan) -> Ranges:
        tensors = tensors_to_calibrate(model, plan, self._static)
        return Ranges(self._spans(tensors), self._weight_grids(plan))

    def _spans(self, tensors: Sequence[str]) -> dict[str, tuple[float, float]]:
        missing = [tensor for tensor in tensors if tensor not in self._ranges]
        self._ranges.update(ranges_from(self._statistics, missing, self._static))
        return {tensor: self._ranges[tensor] for tensor in tensors}

    def _weight_grids(self, plan: Plan) -> dict[str, QuantParams]:
        """Return the grids of weights that depend on activations, of the nodes of a plan."""
        nodes = plan.nodes(Precision.static_int8)
        if not self._paired or not nodes:
            return {}
        everything = plan_of(self.groups, most_integer(self.groups))
        most = everything.nodes(Precision.static_int8)
        if self._reaches is None:
            self._reaches = reaches_of(self.model, most, self._samples, threads=self._threads, seed=self._seed)
        if self._grids is None:
            spans = self._spans(tensors_to_calibrate(self.model, everything, self._static))
            self._grids = weight_grids(self.model, most, self._static, Ranges(spans), self._reaches)
        return {node: self._grids[node] for node in nodes if node in self._grids}

    def _round(self, model: onnx.ModelProto, groups: Sequence[Group]) -> None:
        """Put rounded weights in the place of those of some groups; what else reads one keeps it as it was."""
        if self._rounded is None:
            plan = plan_of(self.groups, most_integer(self.groups))
            ranges = self._ranges_of(self.model, plan)
            rounded = round_weights(self.model, plan, self._static, ranges, self._samples, threads=self._threads)
            constants = initializers_of(rounded)
            inputs = {node.name: node.input[1] for node in rounded.graph.node if len(node.input) > 1}
            self._rounded = {group.weight: constants[inputs[group.name]] for group in self.groups if group.weight}
        copies = separate_weights(model, {node for group in groups for node in group.nodes}, "rounded")
        constants = initializers_of(model)
        for weight in {group.weight for group in groups if group.weight}:
            target = copies.get(weight, weight)
            constants[target].CopyFrom(self._rounded[weight])
            constants[target].name = target


def most_integer(groups: Sequence[Group]) -> dict[str, Precision]:
    """Return the choice in which each group computes in integers, where it can."""
    order = (Precision.static_int8, Precision.dynamic_int8, Precision.weight_int8)
    return {group.name: next(p for p in order if p in group.precisions) for group in groups}


def dynamic_products(groups: Sequence[Group]) -> dict[str, Precision]:
    """Return the choice in which the products of matrices that can compute with dynamic ranges do, and nothing else."""
    return {
        group.name: Precision.dynamic_int8
        for group in groups
        if group.op_type in PRODUCTS and Precision.dynamic_int8 in group.precisions
    }


def settings_of(mode: AutoConfig) -> StaticConfig:
    """Return the settings of the quantizer that makes candidates."""
    return with_settings_of(
        mode,
        StaticConfig,
        kind=ModeKind.static,
        method=mode.method or RangeMethod.minmax,
        dynamic_op_types=[],  # which operators get which precision is what the search decides
        weight_only_op_types=[],
        reconstruct=False,  # of candidates, not of each
        min_channels=1,  # the search measures what a narrow Conv gains
        fold_batch_norm=False,
        cross_layer_equalization=False,
    )


def largest_stored(builder: Builder) -> dict[str, Precision]:
    """Return the choice that stores the groups of the largest weights, which hold most of all that can be stored."""
    constants = initializers_of(builder.model)
    sizes = {
        group.name: math.prod(constants[group.weight].dims)
        for group in builder.groups
        if group.weight and Precision.weight_int8 in group.precisions
    }
    found: dict[str, Precision] = {}
    for name in sorted(sizes, key=lambda name: -sizes[name]):
        if sum(sizes[one] for one in found) >= MOST_BYTES * sum(sizes.values()):
            break
        found[name] = Precision.weight_int8
    return found
