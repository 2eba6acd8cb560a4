"""Where a model's files are, and their metadata."""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from functools import cache
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import numpy.typing as npt
import onnx

from pipeline.audio.resample import resample
from pipeline.errors import ModelError
from pipeline.graph.source_graph import SourceGraph
from pipeline.graph.states import states_of
from pipeline.models.collected_steps import Collected
from pipeline.operator_count import refuse_too_many
from pipeline.outside_errors import unless_memory_is_used_up
from pipeline.paths import resolve_path
from pipeline.sample import Sample

TABLES = ("tokens.txt", "lexicon.txt")
"""What lies beside the graphs of a model, and decides what their inputs and outputs mean."""


@dataclass
class ModelFiles:
    """The settings that every adapter has.

    Attributes:
        name: in paths and in the report; by default what your file or folder is called.
        path: the ONNX file.
        dir: a directory that the files are found in, by the names that icefall and sherpa-onnx give them; it goes before
            `path`.
        url: of one ONNX file, or of an archive (.tar.bz2, .tar.gz, .zip) with a directory in it; goes before both.
        sha256: of what is at `url`: another file is refused.
        calibration_path: the set of its own calibration data.
        evaluation_path: the set of its own evaluation data.
    """

    name: str
    path: str | None = None
    _: KW_ONLY
    dir: str | None = None
    url: str | None = None
    sha256: str | None = None
    calibration_path: str | None = None
    evaluation_path: str | None = None

    reads_shipped_tokens: ClassVar[bool] = True

    @property
    def keep_lengths(self) -> bool:
        """False: lengths follow from those of the inputs, or may change."""
        return False

    @property
    def client_metadata(self) -> Mapping[str, str]:
        """None: the files have it."""
        return {}

    @property
    def client_files(self) -> Mapping[str, str]:
        """None: they lie beside the graphs."""
        return {}

    @property
    def fixed_inputs(self) -> Mapping[str, float] | None:
        """None: only a model of unknown inputs has a setting for them."""
        return None

    @property
    def stays_float(self) -> Mapping[str, str]:
        """None: a mode applies to all graphs."""
        return {}

    @property
    def fixed_sizes(self) -> Mapping[str, int]:
        """None: axes stay open as the files leave them."""
        return {}

    @property
    def graphs(self) -> dict[str, str]:
        """The graphs that a mode applies to: name -> path as configured."""
        raise NotImplementedError

    @property
    def companions(self) -> dict[str, str]:
        """The graphs that are only run: none, unless a model has others."""
        return {}

    @property
    def entry(self) -> str:
        """The graph that an utterance enters: the first one."""
        return next(iter(self.graphs))

    @property
    def side_files(self) -> list[Path]:
        """The token table and the lexicon beside the graphs; they may be missing."""
        folders = dict.fromkeys(resolve_path(path).parent for path in self.graphs.values())
        return [folder / name for folder in folders for name in TABLES]

    def found_at(self, place: Path) -> Self:
        """Return the model with its files at a place: a directory, or one ONNX file."""
        if place.is_dir():
            return replace(self, dir=str(place))
        return replace(self, path=str(place), dir=None)

    def check(self) -> None:
        """Nothing to check."""

    def with_graphs(self, graphs: Mapping[str, SourceGraph]) -> Self:
        """Return the model as it is: its graphs say nothing of how it is run."""
        del graphs
        return self

    def fed_back(self, graph: onnx.GraphProto) -> dict[str, str]:
        """Return the outputs that become inputs of the next call, as their names and shapes tell."""
        return states_of(graph)

    def steps(self, sample: Sample) -> int | None:
        """Return None: a sample is what one call of the entry takes."""
        del sample
        return None

    def first_call(self, sample: Sample) -> Sample:
        """Return the sample: it is what the entry takes."""
        return sample

    def of_noise(self, sample: Sample, seed: Sequence[int]) -> Sample:
        """Return the sample: one call is all that there is."""
        del seed
        return sample

    def collector(self, sample: Sample) -> Collected:
        """Refuse: a sample has no steps."""
        raise NotImplementedError(f"sample {sample.id!r} has no steps")

    def shortened(self, sample: Sample, steps: int) -> Sample:
        """Return the sample: it has no steps."""
        del steps
        return sample

    def for_comparison(self, sample: Sample) -> Sample:
        """Return the sample as it is: no length depends on noise."""
        return sample

    def resample(self, audio: npt.NDArray[np.float32], from_hz: int, to_hz: int) -> npt.NDArray[np.float32]:
        """Resample a recording (samples,) to the rate of the model."""
        return resample(audio, from_hz, to_hz)

    def named(self, what: str, *patterns: str) -> str:
        """Return the file that `path` names, or that is found in `dir`.

        Args:
            what: the role of the file, for messages.
            patterns: of the file's name, the best first.

        Raises:
            ModelError: neither setting names a file.
        """
        if self.dir is not None:
            return str(find_in(resolve_path(self.dir), what, *patterns))
        if self.path is None:
            raise ModelError(f"model.path: not set, and neither is model.dir: name the ONNX file of the {what}.")
        return self.path

    def beside(self, name: str, path: str) -> Path | None:
        """Return a file of this name in `dir`, or beside `path`; None where there is none."""
        folder = resolve_path(self.dir) if self.dir is not None else resolve_path(path).parent
        return folder / name if (folder / name).is_file() else None


def find_in(folder: Path, what: str, *patterns: str) -> Path:
    """Return the best file of a directory: by pattern, fp32 before fp16 and int8, the newest name first.

    Raises:
        ModelError: the directory does not exist, or has no such file.
    """
    if not folder.is_dir():
        raise ModelError(f"model.dir: directory not found: {folder}.")
    for pattern in patterns:
        if files := sorted(folder.glob(pattern), key=_number, reverse=True):
            original = [file for file in files if not {"int8", "fp16"} & set(file.stem.replace("-", ".").split("."))]
            return (original or files)[0]
    held = ", ".join(sorted(file.name for file in folder.iterdir())[:12]) or "nothing"
    raise ModelError(f"model.dir: {folder} has no {what}: no file {' or '.join(patterns)}. It holds {held}.")


def _number(file: Path) -> list[int]:
    """Return the numbers in a file's name, for `model-steps-6` to come before `model-steps-3`."""
    return [int(part) for part in file.stem.replace("_", "-").split("-") if part.isdigit()]


def metadata_of(path: str | Path) -> dict[str, str]:
    """Return the metadata of an ONNX file; empty where there is no such file (loading it reports the error)."""
    model = header_of(path)
    return {} if model is None else {entry.key: entry.value for entry in model.metadata_props}


def header_of(path: str | Path) -> onnx.ModelProto | None:
    """Return the parsed graph without its weights; None where it is not an ONNX file.

    Raises:
        ModelError: it has more operators than any limit allows.
    """
    file = resolve_path(str(path))
    return _parsed(file, file.stat().st_mtime_ns) if file.is_file() else None


@cache
def _parsed(file: Path, _modified: int) -> onnx.ModelProto | None:
    try:
        refuse_too_many(file)
        model = onnx.load(file, load_external_data=False)
    except ModelError:
        raise
    except Exception as error:  # `load` reports what is wrong with it; protobuf's errors share no base class with onnx's
        unless_memory_is_used_up(error)
        return None
    for tensor in model.graph.initializer:
        tensor.ClearField("raw_data")  # shapes are what is asked for; weights would stay in memory
    return model


def looked_up_rows(path: str | Path, tokens: str) -> int | None:
    """Return how many tokens a graph knows: the rows of the table that it looks an input up in; None where it is not known."""
    model = header_of(path)
    if model is None:
        return None
    sizes = {tensor.name: tensor.dims[0] for tensor in model.graph.initializer if len(tensor.dims) == 2}
    lookups = (node for node in model.graph.node if node.op_type == "Gather" and node.input[1] == tokens)
    return next((int(sizes[node.input[0]]) for node in lookups if node.input[0] in sizes), None)


def text_in(metadata: dict[str, str], key: str, path: str) -> str:
    """Return an entry of the metadata that the client cannot do without.

    Raises:
        ModelError: it is not there.
    """
    if key not in metadata:
        raise ModelError(
            f"{resolve_path(path)}: its metadata has no {key}, which sherpa-onnx reads. Export it for sherpa-onnx."
        )
    return metadata[key]


def number_in(metadata: dict[str, str], key: str, path: str) -> int | None:
    """Return a number of the metadata; None where it is not there.

    Raises:
        ModelError: it is not a number.
    """
    if key not in metadata:
        return None
    try:
        return int(metadata[key])
    except ValueError:
        raise ModelError(f"{resolve_path(path)}: its metadata has {key}={metadata[key]!r}, which is not a number.") from None


def agreed(setting: int | None, metadata: int | None, default: int, key: str, path: str) -> int:
    """Return the value that a setting and the metadata agree on.

    Raises:
        ModelError: they contradict each other.
    """
    if setting is not None and metadata is not None and setting != metadata:
        raise ModelError(
            f"{key}: {setting}, but the metadata of {resolve_path(path)} has {metadata}. Leave the setting out, or name the "
            "model that it is of."
        )
    return next((value for value in (setting, metadata) if value is not None), default)
