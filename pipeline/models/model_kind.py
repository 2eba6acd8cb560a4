"""Which kind of model a file or a directory holds: by metadata, inputs, outputs, and the files beside it."""

from dataclasses import dataclass
from pathlib import Path

import onnx

from pipeline.errors import ModelError
from pipeline.graph.value_info import dims_of, dtype_of
from pipeline.models.denoiser import denoiser_of
from pipeline.models.model_files import header_of, metadata_of
from pipeline.models.recogniser_families import FAMILIES
from pipeline.models.streaming_zipformer import MODEL_TYPE
from pipeline.models.vad import detector_of
from pipeline.models.vocoder import VOCOS_OUTPUTS

MATCHA_INPUTS = {"x", "x_length", "noise_scale", "length_scale"}
VITS_INPUTS = ({"input_lengths", "scales"}, {"noise_scale", "length_scale", "noise_scale_w"})
KOKORO_INPUTS = ({"tokens", "style", "speed"}, {"input_ids", "style", "speed"})
KOKORO_TYPES = ("kokoro", "kitten-tts")
CROSS_ATTENTION = {"n_layer_cross_k", "n_layer_cross_v"}
CTC = ("zipformer_ctc", "sense_voice", "paraformer")
OF_FUNASR = ("sense_voice", "paraformer")
TRANSDUCERS = ("zipformer_transducer", "nemo_transducer", "streaming_zipformer")
NEMO_METADATA = {"vocab_size", "pred_rnn_layers", "pred_hidden"}
CHUNKS = {"T", "decode_chunk_len"}  # metadata of a streaming model of icefall
CTC_OUTPUTS = {"log_probs", "logits"}
QUANTIZED = {"int8", "fp16", "int4", "uint8", "quant"}
BANDS = range(20, 257)  # of a mel spectrogram


@dataclass(frozen=True)
class ModelKind:
    """What was found.

    Attributes:
        model: the option of the group `model` that knows it.
        key: the setting that names its place: `model.path` or `model.dir`.
        place: the value of that setting.
        because: by what it was recognised.
    """

    model: str
    key: str
    place: Path
    because: str


def model_kind(place: Path) -> ModelKind:
    """Return which kind of model is at a place.

    Args:
        place: an ONNX file, or a directory of them, as icefall and sherpa-onnx publish models.

    Raises:
        ModelError: there is no ONNX file, or several of which none is known.
    """
    if not place.exists():
        raise ModelError(f"model.path: there is no file or directory {place}.")
    return _of_directory(place) if place.is_dir() else _of_file(place)


def _of_file(file: Path) -> ModelKind:
    model = header_of(file)
    if model is None:
        raise ModelError(f"model.path: {file} is not an ONNX model.")
    kind, because = _of_graph(model, metadata_of(file))
    if kind == "whisper":
        parts = [any(file.parent.glob(f"*{part}*.onnx")) for part in ("encoder", "decoder")]
        if all(parts) and any(file.parent.glob("*tokens.txt")):
            return ModelKind(kind, "model.dir", file.parent, because)
        return ModelKind("onnx", "model.path", file, f"{because}, but the files beside it that it needs are not there")
    tells_tokens = CTC_OUTPUTS & {value.name for value in model.graph.output}
    if kind == "streaming_zipformer" and tells_tokens and (file.parent / "tokens.txt").is_file():
        return ModelKind(kind, "model.path", file, because)
    if kind in TRANSDUCERS and any(file.parent.glob("*joiner*.onnx")):
        return ModelKind(kind, "model.dir", file.parent, because)
    if kind in (*CTC, *TRANSDUCERS) and not (kind in CTC and (file.parent / "tokens.txt").is_file()):
        return ModelKind("onnx", "model.path", file, f"{because}, but the files beside it that it needs are not there")
    return ModelKind(kind, "model.path", file, because)


def _of_directory(folder: Path) -> ModelKind:
    files = [file for file in sorted(folder.glob("*.onnx")) if not QUANTIZED & set(file.stem.replace("-", ".").split("."))]
    if not files:
        raise ModelError(f"model.dir: {folder} holds no ONNX model of fp32.")
    parts = {part for part in ("encoder", "decoder", "joiner") for file in files if file.name.startswith(part)}
    if len(parts) == 3:
        encoder = next(file for file in files if file.name.startswith("encoder"))
        if metadata_of(encoder).keys() >= NEMO_METADATA:
            return ModelKind("nemo_transducer", "model.dir", folder, "it holds encoder, decoder and joiner of NeMo")
        if metadata_of(encoder).keys() >= CHUNKS and metadata_of(encoder).get("model_type") == MODEL_TYPE:
            because = "it holds encoder, decoder and joiner of a streaming Zipformer"
            return ModelKind("streaming_zipformer", "model.dir", folder, because)
        return ModelKind("zipformer_transducer", "model.dir", folder, "it holds encoder, decoder and joiner")
    found = {file: _of_file(file) for file in files}
    for kind in ("matcha", "vits", "kokoro", *CTC, "streaming_zipformer", "whisper"):
        if first := next((each for each in found.values() if each.model == kind), None):
            return ModelKind(kind, "model.dir", folder, f"{first.place.name} {first.because.removeprefix('it ')}")
    if len(files) == 1:
        return found[files[0]]
    known = {each.model for each in found.values()} - {"onnx"}
    if len(known) == 1:
        return next(each for each in found.values() if each.model in known)
    raise ModelError(
        f"model.dir: {folder} holds {len(files)} ONNX models ({', '.join(file.name for file in files[:8])}); name one."
    )


def _of_graph(model: onnx.ModelProto, metadata: dict[str, str]) -> tuple[str, str]:
    """Return the kind of a graph, and why."""
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    names, outputs = {value.name for value in inputs}, {value.name for value in model.graph.output}
    model_type = metadata.get("model_type", "")
    if model_type == "vits" or any(names > inputs for inputs in VITS_INPUTS):
        return "vits", f"it takes {', '.join(value.name for value in inputs)}"
    if told := _of_names(model.graph, names, metadata):
        return told
    family = next((family for family in FAMILIES.values() if model_type in family.model_types), None)
    expected = (family.inputs if family else ()) or ("x", "x_lens")
    if "encoder_out" in outputs and "x" in names <= set(expected):
        return "zipformer_transducer", "it gives encoder_out"
    if names <= set(expected) and expected[0] in names and (outputs & CTC_OUTPUTS):
        kind = family.name if family and family.name in OF_FUNASR else "zipformer_ctc"
        return kind, f"its metadata says {model_type}" if family else f"it gives {', '.join(outputs & CTC_OUTPUTS)}"
    if _makes_audio_of_a_mel(model.graph, inputs):
        return "hifigan", "it makes audio of a spectrogram with transposed convolutions"
    return "onnx", "its inputs and outputs are of no kind that is known"


def _of_names(graph: onnx.GraphProto, names: set[str], metadata: dict[str, str]) -> tuple[str, str] | None:
    """Return the kind of a graph whose inputs, outputs or metadata have names that no other kind has, and why."""
    outputs = {value.name for value in graph.output}
    crossing, detector = outputs >= CROSS_ATTENTION, detector_of(graph, metadata)
    takes_style = metadata.get("model_type") in KOKORO_TYPES or names in KOKORO_INPUTS
    told = {
        "kokoro": takes_style and f"it takes {', '.join(sorted(names))}",
        "denoiser": denoiser_of(graph, metadata) and "its metadata or its inputs are those of a denoiser that sherpa-onnx runs",
        "vad": detector and f"it takes and gives what {detector.name} does",
        "matcha": names >= MATCHA_INPUTS and f"it takes {', '.join(sorted(MATCHA_INPUTS))}",
        "whisper": (outputs | names) >= CROSS_ATTENTION
        and f"it {'gives' if crossing else 'takes'} {' and '.join(sorted(CROSS_ATTENTION))}",
        "nemo_transducer": metadata.keys() >= NEMO_METADATA
        and len(names) == 2
        and f"its metadata has {', '.join(sorted(NEMO_METADATA))}",
        "streaming_zipformer": metadata.keys() >= CHUNKS
        and metadata.get("model_type") == MODEL_TYPE
        and "its metadata has decode_chunk_len: it hears chunk by chunk",
        "vocoder": set(VOCOS_OUTPUTS) <= outputs and f"it gives {', '.join(VOCOS_OUTPUTS)}",
    }
    return next(((kind, because) for kind, because in told.items() if because), None)


def _makes_audio_of_a_mel(graph: onnx.GraphProto, inputs: list[onnx.ValueInfoProto]) -> bool:
    """Say whether a graph is a vocoder: spectrogram (1, bands, frames) in, waveform (1, 1, samples) or (1, samples) out."""
    if len(inputs) != 1 or len(graph.output) != 1 or all(node.op_type != "ConvTranspose" for node in graph.node):
        return False
    taken, given = dims_of(inputs[0]), dims_of(graph.output[0])
    if dtype_of(inputs[0]).kind != "f" or taken is None or given is None or len(taken) != 3:
        return False
    wave = len(given) == 2 or (len(given) == 3 and given[1] in (1, None))
    return taken[1] in BANDS and taken[2] is None and wave
