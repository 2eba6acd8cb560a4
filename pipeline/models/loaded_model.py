"""A model whose graphs have been read: each file is parsed and hashed once."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from google.protobuf.message import DecodeError

from pipeline.errors import ConfigError, ModelError
from pipeline.graph.session import RunError
from pipeline.graph.source_graph import SourceGraph, hash_of_graph, load_graph
from pipeline.models.model_files import TABLES
from pipeline.models.model_sessions import Call, ModelSessions
from pipeline.models.speech_model import SpeechModel
from pipeline.paths import hash_files, resolve_path, settings_with_places
from pipeline.sample import Array, Sample

REMEMBERED_BYTES = 256 << 20
FROZEN_LENGTH = (
    " Where samples of all lengths but one fail, the graph was exported for that length, whatever it declares: export it again "
    "with a dynamic axis there, or give samples of that length."
)


@dataclass(frozen=True)
class LoadedModel(Mapping[str, SourceGraph]):
    """The graphs of a model by name: those that a mode applies to, and those that are only run.

    Attributes:
        adapter: knows what the graphs mean.
        graphs: those that a mode applies to.
        threads: intra-op threads of the sessions.
        exact_products: quality of changed graphs is measured without sums of products that saturate, whatever this processor
            does: it is that of the processors that they are for.
    """

    adapter: SpeechModel
    graphs: Mapping[str, SourceGraph]
    threads: int
    exact_products: bool = False

    def __getitem__(self, name: str) -> SourceGraph:
        """Return a graph. One that is only run is read when it is first asked for; it may be quantized.

        Raises:
            ModelError: the file is missing, corrupt, or refused by ONNX Runtime.
        """
        if name in self.graphs:
            return self.graphs[name]
        if name not in self._companions:
            self._companions[name] = load_graph(name, self.adapter.companions[name], quantizable=False)
        return self._companions[name]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names of all graphs."""
        return iter(dict.fromkeys((*self.adapter.companions, *self.graphs)))

    def __len__(self) -> int:
        """Return the number of all graphs."""
        return len(list(iter(self)))

    @property
    def entry(self) -> SourceGraph:
        """The graph that an utterance enters, whether it is quantized or not."""
        return self[self.adapter.entry]

    @cached_property
    def originals(self) -> ModelSessions:
        """Sessions of all graphs as they were; what they give is kept, within bounds, for the next who asks."""
        return ModelSessions(self, self.threads, remember_bytes=REMEMBERED_BYTES)

    def fault_of(self, sample: Sample, seed: Sequence[int]) -> str | None:
        """Run the original on a sample of its first graph, before anything is blamed on quantization.

        Returns:
            Why the sample cannot be used; None where it can.
        """
        calls: list[Call] = []
        whole = self.adapter.steps(sample) is not None  # the calls of a long sequence would not fit into memory
        try:
            found = self.adapter.infer(sample, self.originals.runner(seed, None if whole else calls))
        except RunError as error:
            fault = f"sample {sample.id!r}: the original model itself does not run on it: {error.reason}."
            return fault + (FROZEN_LENGTH if any(word in error.reason.lower() for word in ("shape", "dimension")) else "")
        calls += [Call(self.adapter.entry, sample, found)] if whole else []
        outputs = [(name, array) for call in calls for name, array in call.outputs.items() if array.dtype.kind == "f"]
        masked = any(array.dtype.kind == "f" and _is_infinite_feature(array) for array in sample.inputs.values())
        for name, array in outputs:
            if (masked and np.isnan(array).any()) or (array.size and np.isnan(array).all()):
                return (
                    f"sample {sample.id!r}: the original model itself gives NaN in its output {name!r} on it, so that nothing "
                    "can be compared. Correct the sample (a logarithm of zero?) or leave it out."
                )
        return None

    @cached_property
    def identity(self) -> tuple[object, ...]:
        """What makes it this model: its settings, and hashes of all of its files; two such models give the same results."""
        graphs = {name: graph.sha256 for name, graph in self.graphs.items()}
        others = {name: self._hash_of(name) for name in self.adapter.companions if name not in graphs}
        adapter, hashed = self.adapter, {file.path for graph in self.graphs.values() for file in graph.files}
        tables = [resolve_path(path).parent / name for path in adapter.companions.values() for name in TABLES]
        settings = settings_with_places(adapter)
        named = [place for place in settings[1].values() if isinstance(place, Path)]
        beside = {file: hash_files(file)[1] for file in {*adapter.side_files, *tables, *named} - hashed if file.is_file()}
        return settings, graphs, others, beside, self.threads, self.exact_products

    def _hash_of(self, companion: str) -> str:
        """Return the hash of a graph that may not be needed itself."""
        if companion not in self._companions:
            with contextlib.suppress(OSError, DecodeError, ModelError, ConfigError):  # of a broken file, loading it tells
                return hash_of_graph(self.adapter.companions[companion])
        return self[companion].sha256

    @cached_property
    def _companions(self) -> dict[str, SourceGraph]:
        return {}


def _is_infinite_feature(array: Array) -> bool:
    """Return whether an input holds minus infinity beside all kinds of numbers, as the logarithm of silence does.

    A mask that is added to something holds it beside zeros.
    """
    infinite = np.isinf(array)
    return bool(infinite.any()) and bool(np.any(array[~infinite] != 0))
