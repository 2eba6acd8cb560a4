"""The load stage: fetch the model where it is on a server, read and hash its graphs, check that they can be worked on."""

from dataclasses import replace

from pipeline.graph.fixed_sizes import with_sizes
from pipeline.graph.source_graph import load_graph
from pipeline.models.loaded_model import LoadedModel
from pipeline.models.speech_model import SpeechModel
from pipeline.paths import cache_directory
from pipeline.ptq.reconstructed import check_torch
from pipeline.quantize.target import exact_on_target_only
from pipeline.quantize.type_names import check_type_names
from pipeline.stages.context import RunContext


def run(context: RunContext) -> LoadedModel:
    """Load every graph that a mode applies to, and note the files that decide what they mean."""
    if context.config.model.url is not None:
        _fetch(context)
    check_torch((context.config.mode, *context.config.graph_modes.values()))
    model = load(context.config.model, context.config.runtime.threads)
    for name, source in model.graphs.items():
        check_type_names(source, context.config.mode_of(name))
    if any(exact_on_target_only(mode) for mode in (context.config.mode, *context.config.graph_modes.values())):
        model = replace(model, exact_products=True)
    if sizes := context.config.model.fixed_sizes:
        axes = " and ".join(f"{name} at {size}" for name, size in sizes.items())
        context.run_log.note(
            f"model.batch fixes {axes} in what is written, and what follows from it is computed already: one recording at a "
            "time, as in an app. A server that decodes several streams in one call needs files without it."
        )
    context.run_log.read(*context.config.model.side_files)
    for graph in model.graphs.values():
        context.run_log.read_hashed(*graph.files)
    return model


def load(model: SpeechModel, threads: int = 1) -> LoadedModel:
    """Load every graph that a mode applies to.

    Args:
        model: the adapter, which names the files.
        threads: intra-op threads of the sessions that will be opened.

    Raises:
        ModelError: a file is missing, corrupt, refused by ONNX Runtime, or already quantized, or the files of the model
            contradict each other.
    """
    graphs = {name: load_graph(name, path, fixed=model.fixed_inputs) for name, path in model.graphs.items()}
    model.check()
    if sizes := model.fixed_sizes:
        graphs = {name: replace(one, model=with_sizes(one.model, sizes, str(one.path))) for name, one in graphs.items()}
    if model.keep_lengths:
        graphs = {name: replace(graph, keep_lengths=True) for name, graph in graphs.items()}
    for graph in graphs.values():  # what is made of them is to have it as well
        present = {entry.key for entry in graph.model.metadata_props}
        for key, value in model.client_metadata.items():
            if key not in present:
                graph.model.metadata_props.add(key=key, value=value)
    return LoadedModel(model.with_graphs(graphs), graphs, threads)


def _fetch(context: RunContext) -> None:
    """Download the model; from then on it is where the cache has it.

    Raises:
        ConfigError: the address or the hash is invalid.
        DataError: the file cannot be had, or is another one than `sha256` says.
    """
    from pipeline.data.download import download

    model = context.config.model
    assert model.url is not None
    name = model.url.rpartition("/")[2]
    with context.progress.megabytes(f"download {name}") as on_progress:
        got = download(model.url, model.sha256, cache_directory(), on_progress)
    context.run_log.read(got.file)
    if model.sha256 is None:
        context.run_log.warn(f"model.sha256: not set, so {name} was not verified; its SHA-256 is in the report's inputs.")
    context.config = replace(context.config, model=model.found_at(got.folder or got.file))
