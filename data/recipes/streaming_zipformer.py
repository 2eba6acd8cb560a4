"""A streaming Zipformer transducer as icefall exports it, in three files, with random weights.

    pip install --no-deps zipformer==0.1.3
    python -m data.recipes.streaming_zipformer ZIPFORMER                                     # 0.97 M parameters, 3.6 MB
    python -m data.recipes.streaming_zipformer --small tests/exported/streaming_zipformer    # for tests, 130 kB

Model and export are those of the `zipformer` package (Yao et al., 2023). The package wants others for data loading, logging and
downloads, which neither needs.
"""

import argparse
import gzip
import logging
import sys
import tempfile
import types
import warnings
from pathlib import Path
from unittest.mock import MagicMock

import onnx
import torch
from torch import nn

from data.recipes.training import prepare

PARTS = ("encoder", "decoder", "joiner")
TOKENS, SMALL_TOKENS = 154, 28
UNUSED = (
    "atdataset",
    "huggingface_hub",
    "kaldialign",
    "kaldifst",
    "modelscope",
    "onnxconverter_common",
    "ssentencepiece",
    "torch.utils.tensorboard",
    "torchaudio",
    "torchaudio.compliance",
)
USUAL: dict[str, str | int] = {
    "downsampling_factor": "1,2",
    "num_encoder_layers": "1,2",
    "encoder_dim": "80,96",
    "encoder_unmasked_dim": "80,96",
    "query_head_dim": "16",
    "pos_head_dim": "4",
    "value_head_dim": "12",
    "num_heads": "4",
    "feedforward_dim": "128",
    "cnn_module_kernel": "15",
    "pos_dim": 48,
    "chunk_size": "16",  # frames of 20 ms that a step computes
    "left_context_frames": "64",  # and that it sees of the past
    "decoder_dim": 128,
    "joiner_dim": 128,
}
SMALL: dict[str, str | int] = {
    "encoder_dim": "16,24",
    "encoder_unmasked_dim": "16,24",
    "num_encoder_layers": "1,1",
    "num_heads": "2",
    "query_head_dim": "8",
    "value_head_dim": "6",
    "feedforward_dim": "32",
    "cnn_module_kernel": "7",
    "pos_dim": 16,
    "decoder_dim": 24,
    "joiner_dim": 24,
    "left_context_frames": "32",
}
LARGE_BYTES = 256  # of weights that tests draw anew: they need no certain ones


def zipformer_model(vocabulary: int, sizes: dict[str, str | int]) -> nn.Module:
    """Two stacks, at 50 and at 25 frames a second.

    Args:
        vocabulary: how many tokens there are, with the blank.
        sizes: in the place of `USUAL`.
    """
    sys.modules |= {name: MagicMock() for name in UNUSED}
    from zipformer.modules.model import AsrModel

    return AsrModel(causal=True, vocab_size=vocabulary, **USUAL | sizes)


def write_files(model: nn.Module, count: int, out: Path) -> None:
    """The package's own export, with the legacy exporter and a batch of any size; then tokens.txt."""
    from zipformer.bin.export import export_onnx_streaming_transducer

    out.mkdir(parents=True, exist_ok=True)
    settings = types.SimpleNamespace(
        exp_dir=out, suffix="fp32", feature_dim=80, dynamic_batch=True,
        use_external_data=False, export_fp16=False, enable_int8_quantization=False,
    )  # fmt: skip
    exporter = torch.onnx.export
    torch.onnx.export = lambda *args, **options: exporter(*args, **options, dynamo=False)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            export_onnx_streaming_transducer(settings, model.eval())
    finally:
        torch.onnx.export = exporter
    for part in PARTS:
        path = out / f"{part}-fp32.onnx"
        graph = onnx.load(path)
        for node in graph.graph.node:
            node.doc_string = ""
        onnx.checker.check_model(graph, full_check=True)
        onnx.save(graph, out / f"{part}.onnx")
        path.unlink()
        print(f"{part}.onnx: {(out / f'{part}.onnx').stat().st_size:,} bytes, {len(graph.graph.node)} nodes")
    (out / "tokens.txt").write_text("".join(f"t{index} {index}\n" for index in range(count)), encoding="utf-8")


def write_small(out: Path) -> None:
    """Write the three graphs with two small layers and without their weights, compressed; tests fill in random ones."""
    with tempfile.TemporaryDirectory() as place:
        write_files(zipformer_model(SMALL_TOKENS, SMALL), SMALL_TOKENS, Path(place))
        out.mkdir(parents=True, exist_ok=True)
        for part in PARTS:
            graph = onnx.load(Path(place) / f"{part}.onnx")
            for tensor in graph.graph.initializer:
                if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.raw_data) > LARGE_BYTES:
                    tensor.raw_data = b""
            del graph.graph.value_info[:]
            (out / f"{part}.onnx.gz").write_bytes(gzip.compress(graph.SerializeToString(), mtime=0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder for encoder.onnx, decoder.onnx, joiner.onnx, tokens.txt")
    parser.add_argument("--small", action="store_true", help="write what tests use instead")
    arguments = parser.parse_args()
    logging.disable(logging.INFO)
    prepare(seed=7)
    if arguments.small:
        write_small(arguments.out)
    else:
        write_files(zipformer_model(TOKENS, {}), TOKENS, arguments.out)


if __name__ == "__main__":
    main()
