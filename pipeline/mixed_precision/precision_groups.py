"""What is decided together: the nodes of a graph in groups, each with the precisions that it may have.

Nodes that share a weight (the unrolled steps of a flow, tied embeddings) are one group: in two precisions, the weight would
be stored twice. A Conv or MatMul goes with the operators that its integer kernel fuses, since the quantizer places its pairs
around both.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import onnx

from pipeline.config.choices import ModeKind
from pipeline.config.mode_settings import DynamicConfig, StaticConfig, with_settings_of
from pipeline.graph.op_sets import STORABLE
from pipeline.graph.prepare import PreparedGraph, initializers_of
from pipeline.graph.subgraph_scopes import bodies
from pipeline.graph.subgraph_scopes import graphs_of as scopes_of
from pipeline.quantize.dynamic import plan_dynamic
from pipeline.quantize.infinite_activations import keep_infinite
from pipeline.quantize.plan import Plan, Precision
from pipeline.quantize.static import plan_static
from pipeline.record.results import Kept


@dataclass(frozen=True)
class Group:
    """Nodes that get the same precision.

    Attributes:
        name: of the first of them.
        op_type: of all.
        nodes: in the order of the graph.
        weight: the constant that they share; empty: they lie in the bodies of the node that the group has its name of.
        precisions: what they may become, besides fp32.
    """

    name: str
    op_type: str
    nodes: tuple[str, ...]
    weight: str
    precisions: tuple[Precision, ...]

    @property
    def outermost(self) -> tuple[str, ...]:
        """The nodes of the outermost graph that change with it."""
        return self.nodes if self.weight else (self.name,)


Choice = Mapping[str, Precision]
"""Group name -> its precision; a group that is left out stays fp32."""

STORED = frozenset({Precision.weight_int8, Precision.weight_int16})
NOTHING: Mapping[str, str] = MappingProxyType({})


def groups_of(
    prepared: PreparedGraph, static: StaticConfig, infinite: Mapping[str, str] = NOTHING
) -> tuple[list[Group], list[Kept]]:
    """Return the groups of a graph that may be quantized, and the nodes that may not, with reasons.

    Args:
        prepared: the graph.
        static: what limits the choice: operator types, named and excluded nodes.
        infinite: tensors without a range, each with the sample that shows it.

    Raises:
        ConfigError: a name or a type means nothing in this graph.
    """
    everywhere = replace(static, dynamic_op_types=[], weight_only_op_types=[])
    at_run_time = _dynamic(static)
    plans = {
        Precision.static_int8: plan_static(prepared, everywhere),
        Precision.dynamic_int8: plan_dynamic(prepared, at_run_time),
        Precision.weight_int8: plan_dynamic(prepared, replace(at_run_time, weight_only_op_types=sorted(STORABLE))),
    }
    for plan in plans.values():
        keep_infinite(prepared.model, plan, infinite)
    allowed: dict[str, list[Precision]] = defaultdict(list)
    for precision, plan in plans.items():
        for name, planned in plan.precisions.items():
            if planned is precision:
                allowed[name].append(precision)
    by_weight: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    constants = initializers_of(prepared.model)
    for node in prepared.model.graph.node:
        if node.op_type in STORABLE and len(node.input) > 1 and node.input[1] in constants:
            by_weight[node.input[1]].append(node)
    found: list[Group] = []
    for weight, nodes in by_weight.items():
        common = [p for p in plans if all(p in allowed[node.name] for node in nodes)]
        if common and len({node.op_type for node in nodes}) == 1:
            names = tuple(node.name for node in nodes)
            found.append(Group(names[0], nodes[0].op_type, names, weight, tuple(common)))
    found += _bodies(prepared.model.graph, plans[Precision.weight_int8])
    grouped = {name for group in found for name in group.nodes}
    reasons = {kept.node: kept for kept in plans[Precision.static_int8].kept}
    fixed = [
        reasons.get(node.name, Kept(node.name, "shares its weight with a node that cannot be quantized"))
        for nodes in by_weight.values()
        for node in nodes
        if node.name not in grouped
    ]
    return found, fixed


def _bodies(graph: onnx.GraphProto, stored: Plan) -> list[Group]:
    """Return what lies in the bodies of each node with any, as a group that can store its weights."""
    found = []
    for node in graph.node:
        inner = [each.name for body in bodies(node) for scope in scopes_of(body) for each in scope.node]
        names = tuple(name for name in inner if stored.precisions.get(name) is Precision.weight_int8)
        if names:
            found.append(Group(node.name, node.op_type, names, "", (Precision.weight_int8,)))
    return found


def plan_of(groups: Collection[Group], choice: Choice) -> Plan:
    """Return the plan of a choice."""
    return Plan({node: choice[group.name] for group in groups if group.name in choice for node in group.nodes})


def stored_only(choice: Choice) -> dict[str, Precision]:
    """Return the part of a choice that computes in float and stores its weights as integers."""
    return {group: precision for group, precision in choice.items() if precision in STORED}


def in_integers(choice: Choice) -> dict[str, Precision]:
    """Return the part of a choice that computes in integers."""
    return {group: precision for group, precision in choice.items() if precision not in STORED}


def _dynamic(static: StaticConfig) -> DynamicConfig:
    """Return the settings of a dynamic mode with the same limits."""
    return with_settings_of(static, DynamicConfig, kind=ModeKind.dynamic, weight_only_op_types=[])
