"""What tests of quantized files share."""

import onnx
import pytest

from pipeline.stages.quantize import quantize


@pytest.fixture
def written(source_of, run_directory):
    """Return a function: (model, mode, samples) -> (artifact, its graph, what the stage gives)."""

    def make(model, mode, *samples):
        result = quantize({"model": source_of(model)}, mode, {"model": samples}, {"model": samples}, run_directory)
        artifact = result.artifacts["model"]
        onnx.checker.check_model(str(artifact.path), full_check=True)
        return artifact, onnx.load(artifact.path), result

    return make
