"""What settings choose from. Members are lower-case: Hydra 1.3 reads and writes an enum by the name of its member."""

from enum import Enum


class ModeKind(Enum):
    """The closed set of modes; each has one settings class below and one file in `pipeline/quantize/`."""

    dynamic = "dynamic"
    static = "static"
    weight_only = "weight_only"
    fp16 = "fp16"
    optimize = "optimize"
    auto = "auto"


class Target(Enum):
    """The processors that the model will run on: `pipeline/quantize/target.py` says what each computes with."""

    x86 = "x86"
    x86_avx2 = "x86_avx2"
    x86_vnni = "x86_vnni"
    x86_amx = "x86_amx"
    arm = "arm"
    arm_i8mm = "arm_i8mm"


class PackageKind(Enum):
    """What a package is for."""

    sherpa_onnx = "sherpa_onnx"
    onnx = "onnx"


class IntegerType(Enum):
    """An integer type of weights or activations. Sub-byte and 16-bit types need an opset of 21."""

    int8 = "int8"
    uint8 = "uint8"
    int16 = "int16"
    uint16 = "uint16"
    int4 = "int4"
    uint4 = "uint4"


class Format(Enum):
    """How a statically quantized graph is written: Q/DQ pairs around float operators, or integer operators."""

    qdq = "qdq"
    qoperator = "qoperator"


class RangeMethod(Enum):
    """How the range of a tensor follows from what was seen during calibration."""

    minmax = "minmax"
    moving_average = "moving_average"
    percentile = "percentile"
    entropy = "entropy"
    mse = "mse"


class CalibrationKind(Enum):
    """Where calibration samples come from."""

    real = "real"
    audio = "audio"
    manifest = "manifest"
    sentences = "sentences"
    arrays = "arrays"
    random = "random"


class OnBadSample(Enum):
    """What happens to a sample that cannot be used: the run ends, or goes on without it and the report says so."""

    refuse = "refuse"
    skip = "skip"


class SampleRateMismatch(Enum):
    """What happens to an audio file whose sample rate is not the model's."""

    resample = "resample"
    refuse = "refuse"


class TrackingKind(Enum):
    """A program that keeps runs."""

    mlflow = "mlflow"


class Language(Enum):
    """A language of the pages."""

    en = "en"
    zh = "zh"
