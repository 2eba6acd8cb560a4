"""A model whose graphs have been read: each file is parsed and hashed once."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from pipeline.graph.source_graph import SourceGraph, load_graph
from pipeline.models.model_sessions import ModelSessions
from pipeline.models.speech_model import SpeechModel


@dataclass(frozen=True)
class LoadedModel(Mapping[str, SourceGraph]):
    """The graphs of a model by name: those that a mode applies to, and those that are only run.

    Attributes:
        adapter: knows what the graphs mean.
        graphs: those that a mode applies to.
        threads: intra-op threads of the sessions.
    """

    adapter: SpeechModel
    graphs: Mapping[str, SourceGraph]
    threads: int

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
        """Sessions of all graphs as they were."""
        return ModelSessions(self, self.threads)

    @cached_property
    def _companions(self) -> dict[str, SourceGraph]:
        return {}
