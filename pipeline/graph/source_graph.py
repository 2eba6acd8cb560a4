"""A graph of a model as it was found: its file, its hash and what it holds."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx


@dataclass(frozen=True)
class SourceGraph:
    """One graph of the model, as it was found.

    Attributes:
        name: its role, such as `acoustic`.
        path: the file, absolute.
        sha256: of the file and of its external data.
        size_bytes: of the file and of its external data.
        model: the parsed graph.
        fixed: inputs that it takes but ignores, since they are always the same, and their values.
    """

    name: str
    path: Path
    sha256: str
    size_bytes: int
    model: onnx.ModelProto
    fixed: Mapping[str, npt.NDArray[np.generic]] = field(default_factory=dict)

    @property
    def opset(self) -> int:
        """The version of the default operator set."""
        return opset_of(self.model)


def external_files(model: onnx.ModelProto, folder: Path) -> list[Path]:
    """Return the files beside a model that hold its weights, each once."""
    names = {
        entry.value
        for tensor in model.graph.initializer
        if tensor.data_location == onnx.TensorProto.EXTERNAL
        for entry in tensor.external_data
        if entry.key == "location"
    }
    return [folder / name for name in sorted(names)]


def opset_of(model: onnx.ModelProto) -> int:
    """Return the version of the default operator set."""
    return max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=1)
