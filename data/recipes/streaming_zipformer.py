"""The streaming recogniser: a causal Zipformer transducer as icefall exports it, in three files.

    pip install --no-deps zipformer==0.1.3
    python -m data.recipes.streaming_zipformer --work WORK --out data/models/streaming_zipformer
    python -m data.recipes.streaming_zipformer --small tests/exported/streaming_zipformer    # untrained, 130 kB, for tests

Model, optimiser and export are those of the `zipformer` package (Yao et al., 2023); data and augmentation are those of the
recogniser in `asr.py`, whose features WORK may hold already.
"""

import argparse
import copy
import functools
import gzip
import json
import logging
import sys
import tempfile
import types
import warnings
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from data.recipes import asr
from data.recipes.training import groups_of_similar_length, half_precision, prepare, train
from data.recipes.word_pieces import WordPieces

PARTS = ("encoder", "decoder", "joiner")
BATCH, PEAK, WARM_UP = 64, 0.04, 60
CHUNK, LEFT_CONTEXT = 16, 64  # frames of 20 ms: what a step computes, and what it sees of the past
CTC_SHARE = 0.2  # of the loss: CTC finds the alignment sooner
TAIL = 30  # frames of silence after a clip, as clients add them
ROUNDS = ((5_000, 1513, 500), (10_000, 800, 400))
"""Of each round of training: how many clips, the shortest ones, since those that judge it are short; steps; and of these the
last ones, in which the learning rate falls."""
NEVER = -1e30  # the log-probability of what cannot be

# What the package imports and neither model nor export needs: data loading, logging, downloads.
_UNUSED = (
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


def zipformer_model(vocabulary: int, **sizes: str | int) -> nn.Module:
    """Two stacks, at 50 and at 25 frames a second, one and two layers deep: 0.97 M parameters without the heads of training.

    Args:
        vocabulary: how many tokens there are, with the blank.
        sizes: other ones than these.
    """
    sys.modules |= {name: MagicMock() for name in _UNUSED}
    from zipformer.modules.model import AsrModel

    torch.compile = lambda function, *_, **__: function  # takes longer than it saves here
    usual: dict[str, str | int] = {
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
        "chunk_size": str(CHUNK),
        "left_context_frames": str(LEFT_CONTEXT),
        "decoder_dim": 128,
        "joiner_dim": 128,
        "warmup_batches": 2000,
    }
    return AsrModel(causal=True, use_ctc=True, vocab_size=vocabulary, dropout=0.05, **usual | sizes)


@functools.partial(torch.compile, dynamic=True)
def _swoosh(x: Tensor, shift: float, offset: float) -> Tensor:
    z = x - shift
    return z.relu() + torch.log1p(torch.exp(-z.abs())) - 0.08 * x - offset


@functools.partial(torch.compile, dynamic=True)
def _of_swoosh(gradient: Tensor, x: Tensor, shift: float) -> Tensor:
    return gradient * (torch.sigmoid(x - shift) - 0.08)


class Swoosh(torch.autograd.Function):
    """log(1 + exp(x - shift)) - 0.08 x - offset in one pass, which takes a third of the time."""

    @staticmethod
    def forward(ctx, x: Tensor, shift: float, offset: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.shift = shift
        return _swoosh(x, shift, offset)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
        return _of_swoosh(gradient, ctx.saved_tensors[0], ctx.shift), None, None


class Depthwise(torch.autograd.Function):
    """A convolution of each channel by itself, 7 by 7: PyTorch's own derivative takes ten times as long on a processor."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return nn.functional.conv2d(x, weight.to(x.dtype), padding=3, groups=len(weight))

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        turned = weight.flip(2, 3).to(gradient.dtype)
        of_weight = torch.nn.grad.conv2d_weight(x.float(), weight.shape, gradient.float(), padding=3, groups=len(weight))
        return nn.functional.conv2d(gradient, turned, padding=3, groups=len(weight)), of_weight


def for_training(model: nn.Module) -> nn.Module:
    """A copy for one core: the same weights, other derivatives, and without what keeps large trainings stable.

    The package writes derivatives out by hand to save memory of GPUs, which autocast on a processor does not know.
    """
    from zipformer.modules import scaling, subsampling

    def left(x: Tensor) -> Tensor:
        return Swoosh.apply(x, 4.0, 0.035)

    def right(x: Tensor) -> Tensor:
        return Swoosh.apply(x, 1.0, 0.313261687)

    def linear(module: nn.Module, x: Tensor) -> Tensor:
        x = (left if module.activation == "SwooshL" else right)(x)
        return nn.functional.linear(
            nn.functional.dropout(x, float(module.dropout_p), module.training), module.weight, module.bias
        )

    def norm(module: nn.Module, x: Tensor) -> Tensor:
        scale = ((x - module.bias) ** 2).mean(module.channel_dim, keepdim=True) ** -0.5 * module.log_scale.exp()
        return x * scale.to(x.dtype)

    def convnext(module: nn.Module, x: Tensor) -> Tensor:
        x = x.to(torch.bfloat16 if torch.is_autocast_enabled("cpu") else x.dtype, memory_format=torch.channels_last)
        y = Depthwise.apply(x, module.depthwise_conv.weight) + module.depthwise_conv.bias[:, None, None].to(x.dtype)
        y = y.permute(0, 2, 3, 1)
        for part in (module.pointwise_conv1, module.pointwise_conv2):
            y = nn.functional.linear(y, part.weight[:, :, 0, 0], part.bias)
            y = left(y) if part is module.pointwise_conv1 else y
        return x + y.permute(0, 3, 1, 2)

    model = copy.deepcopy(model)
    for module in model.modules():
        if isinstance(module, scaling.Balancer | scaling.Whiten | scaling.ScaleGrad):
            module.forward = lambda x, *_: x
        elif isinstance(module, scaling.SwooshL | scaling.SwooshR):
            module.forward = left if isinstance(module, scaling.SwooshL) else right
        elif isinstance(module, scaling.ActivationDropoutAndLinear):
            module.forward = functools.partial(linear, module)
        elif isinstance(module, scaling.BiasNorm):
            module.forward = functools.partial(norm, module)
        elif isinstance(module, subsampling.ConvNeXt):
            module.forward = functools.partial(convnext, module)
        elif isinstance(module, nn.Conv2d):
            module.to(memory_format=torch.channels_last)
    return model


def transducer_loss(joint: Tensor, targets: Tensor, frames: Tensor, counts: Tensor) -> Tensor:
    """Negative log-likelihood of the targets where each frame emits one token or the blank (0), as the client's search does.

    This is Graves' transducer (2012) with another lattice: a token, too, goes on to the next frame.

    Args:
        joint: (batch, T, U + 1, vocabulary), logits of the joiner.
        targets: (batch, U), padded with any token.
        frames: (batch,), how many of T count; at least as many as there are targets.
        counts: (batch,), how many of U count.

    Returns:
        (batch,), in nats.
    """
    batch, _, width, _ = joint.shape
    log_probs = joint.float().log_softmax(-1)
    blank = log_probs[..., 0]
    index = targets[:, None, :, None].expand(-1, joint.shape[1], -1, 1)
    emit = log_probs[:, :, :-1].gather(-1, index)[..., 0]
    alpha = torch.full((batch, width), NEVER)
    alpha[:, 0] = 0
    none = torch.full((batch, 1), NEVER)
    alphas = []
    for now_blank, now_emit in zip(blank.unbind(1), emit.unbind(1), strict=True):
        alpha = torch.logaddexp(alpha + now_blank, torch.cat([none, alpha[:, :-1] + now_emit], 1))
        alphas.append(alpha)
    return -torch.stack(alphas, 1)[torch.arange(batch), frames - 1, counts]


def first_layers(model: nn.Module, clips: list[np.ndarray]) -> list[np.ndarray]:
    """Run what turns frames of 10 ms into frames of 20 ms, but for its norm: float16 (frames, 80) of each clip and its tail.

    These convolutions are most of the model's work, and keep the random weights that they begin with: on one core, training
    them would take hours. What they give is projected on its principal components first, which `model` gets as weights.
    """
    part = for_training(model).eval().encoder_embed
    out, kept = part.out, part.forward
    part.out_norm.forward = part.dropout.forward = lambda x: x

    def run(chosen: list[np.ndarray]) -> tuple[Tensor, Tensor]:
        padded = [np.pad(clip, ((0, TAIL), (0, 0)), constant_values=asr.SILENCE) for clip in chosen]
        with torch.no_grad(), half_precision():
            return kept(*asr.padded(padded))

    part.out = nn.Identity()
    x, lengths = run(clips[:64])
    rows = torch.cat([row[:length:2].float() for row, length in zip(x, lengths.tolist(), strict=True)])
    mean = rows.mean(0)
    _, sizes, axes = torch.pca_lowrank(rows - mean, q=len(out.weight), center=False)
    weight = axes.T / (sizes / len(rows) ** 0.5).sqrt()[:, None]  # small components count more than by their size
    with torch.no_grad():
        for one in (out, model.encoder_embed.out):
            one.weight.copy_(weight)
            one.bias.copy_(-weight @ mean)
    part.out = out
    order = np.argsort([len(clip) for clip in clips])
    found: dict[int, np.ndarray] = {}
    for start in range(0, len(order), BATCH):
        group = order[start : start + BATCH]
        x, lengths = run([clips[index] for index in group])
        rows_of = zip(group, x, lengths.tolist(), strict=True)
        found |= {int(index): row[:length].to(torch.float16).numpy() for index, row, length in rows_of}
        if start % (50 * BATCH) == 0:
            print(f"{start} of {len(order)} clips", flush=True)
    return [found[index] for index in range(len(clips))]


def encoded(model: nn.Module, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Run the other layers: (batch, frames / 2, 96), and how many frames there are of each clip."""
    x = model.encoder_embed.out_norm(x)
    padding = torch.arange(x.shape[1])[None] >= lengths[:, None]
    found, frames = model.encoder(x.permute(1, 0, 2), lengths, padding)
    return found.permute(1, 0, 2), frames


def losses_of(model: nn.Module, x: Tensor, lengths: Tensor, targets: Tensor, counts: Tensor) -> dict[str, Tensor]:
    """Transducer and CTC loss a token."""
    with half_precision():
        heard, frames = encoded(model, x, lengths)
        past = model.decoder(nn.functional.pad(targets, (1, 0)))
        joint = model.joiner(heard[:, :, None], past[:, None])
        ctc = model.ctc_output(heard)
    loss = transducer_loss(joint, targets, frames, counts).sum() / counts.sum()
    flat = torch.cat([row[:count] for row, count in zip(targets, counts.tolist(), strict=True)])
    aligned = nn.functional.ctc_loss(ctc.float().transpose(0, 1), flat, frames, counts, reduction="sum", zero_infinity=True)
    return {"transducer": (1 - CTC_SHARE) * loss, "ctc": CTC_SHARE * aligned / counts.sum()}


def stacked(clips: list[np.ndarray]) -> tuple[Tensor, Tensor]:
    """Stack what the first layers gave: float32 (batch, frames, 80), and their lengths."""
    rows = [torch.from_numpy(clip.astype(np.float32)) for clip in clips]
    return nn.utils.rnn.pad_sequence(rows, batch_first=True), torch.tensor([len(row) for row in rows])


def batches(features: list[np.ndarray], targets: list[list[int]]) -> Iterator[tuple[Tensor, ...]]:
    """Endless batches of clips of similar length: features, lengths, targets (padded), how many there are.

    Two short times and a few components of each clip are hidden.
    """
    rng = np.random.default_rng(64)
    for group in groups_of_similar_length([len(clip) for clip in features], BATCH, 6, rng):
        x, lengths = stacked([features[i] for i in group])
        for clip, length in zip(x, lengths.tolist(), strict=True):
            for start in rng.integers(0, max(1, length - 6), size=2):
                clip[start : start + rng.integers(0, 7)] = 0
            clip[:, rng.integers(0, 80, size=rng.integers(0, 8))] = 0
        counts = torch.tensor([len(targets[i]) for i in group])
        tokens = nn.utils.rnn.pad_sequence([torch.tensor(targets[i]) for i in group], batch_first=True)
        yield x, lengths, tokens, counts


def transcribe(model: nn.Module, clips: list[np.ndarray], symbols: list[str]) -> list[str]:
    """Greedy search, one token a frame at most. The masks of training see what the states of the export hold."""
    texts = []
    for start in range(0, len(clips), BATCH):
        heard, frames = encoded(model, *stacked(clips[start : start + BATCH]))
        heard = model.joiner.encoder_proj(heard)
        context = torch.tensor([[-1, 0]] * len(heard))
        rows: list[list[int]] = [[] for _ in heard]
        for number, frame in enumerate(heard.unbind(1)):
            past = model.joiner.decoder_proj(model.decoder(context, need_pad=False))[:, 0]
            best = model.joiner.output_linear(torch.tanh(frame + past)).argmax(-1) * (number < frames)
            context = torch.where(best[:, None] > 0, torch.stack([context[:, 1], best], 1), context)
            for row, token in zip(rows, best.tolist(), strict=True):
                row.extend([token] * (token > 0))
        texts += ["".join(symbols[token] for token in row).replace("▁", " ").strip() for row in rows]
    return texts


def write_files(model: nn.Module, symbols: list[str], out: Path) -> None:
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
            export_onnx_streaming_transducer(settings, copy.deepcopy(model).eval())
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
    table = "".join(f"{symbol} {index}\n" for index, symbol in enumerate(symbols))
    (out / "tokens.txt").write_text(table, encoding="utf-8")


def shortest(lengths: list[int]) -> np.ndarray:
    """The clips of all rounds by their numbers, in the order in which they join; at random within each."""
    ordered = np.argsort(lengths)
    ends = [0, *(clips for clips, _, _ in ROUNDS)]
    joining = [ordered[start:end] for start, end in pairwise(ends)]
    return np.concatenate([np.random.default_rng(65 + number).permutation(part) for number, part in enumerate(joining)])


def learn(model: nn.Module, features: list[np.ndarray], texts: list[str], pieces: WordPieces, weights: Path) -> None:
    """Train all but the first layers."""
    from zipformer.modules.optim import ScaledAdam

    trained, targets = for_training(model), [pieces.encode(text) for text in texts]
    for name, parameter in trained.named_parameters():
        parameter.requires_grad = not name.startswith(("encoder_embed.conv", "encoder_embed.out."))
    free = [(name, parameter) for name, parameter in trained.named_parameters() if parameter.requires_grad]
    scheduled = [module for module in trained.modules() if hasattr(module, "batch_count")]
    done = 0

    def losses(*batch: Tensor) -> dict[str, Tensor]:
        nonlocal done
        for module in scheduled:  # dropout and the other schedules of the package: a batch counts as twenty
            module.batch_count = done * 20
        done += 1
        return losses_of(trained, *batch)

    def validate() -> str:
        count = asr.VALIDATION
        found = transcribe(trained, features[:count], pieces.symbols)
        wrong = [(a, b) for a, b in zip(texts[:count], found, strict=True) if a != b]
        return f"{len(wrong)} of {count} sentences wrong, e.g. {json.dumps(wrong[:2])}"

    for clips, steps, decay in ROUNDS:

        def factor(step: int, steps: int = steps, decay: int = decay) -> float:
            return min((step + 1) / WARM_UP, 1.0) * min(1.0, max(0.02, (steps - step) / decay))

        train(
            trained,
            batches(features[asr.VALIDATION : clips], targets[asr.VALIDATION : clips]),
            losses,
            steps=steps,
            peak=PEAK,
            checkpoint=weights,
            optimizer=ScaledAdam(free, lr=PEAK, clipping_scale=2.0),
            clip=float("inf"),
            factor=factor,
            validate=validate,
            validate_every=200,
        )
    model.load_state_dict(trained.state_dict())
    torch.save(model.state_dict(), weights)


SMALL = {
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


def write_small(out: Path) -> None:
    """Write the three graphs with two small layers and without their weights, compressed; tests fill in random ones."""
    prepare(seed=7)
    with tempfile.TemporaryDirectory() as place:
        write_files(zipformer_model(28, **SMALL), [f"t{number}" for number in range(28)], Path(place))
        out.mkdir(parents=True, exist_ok=True)
        for part in PARTS:
            graph = onnx.load(Path(place) / f"{part}.onnx")
            for tensor in graph.graph.initializer:
                if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.raw_data) > LARGE_BYTES:
                    tensor.raw_data = b""
            del graph.graph.value_info[:]
            (out / f"{part}.onnx.gz").write_bytes(gzip.compress(graph.SerializeToString(), mtime=0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, help="folder for data and weights")
    parser.add_argument("--out", type=Path, help="folder for encoder.onnx, decoder.onnx, joiner.onnx, tokens.txt")
    parser.add_argument("--untrained", action="store_true", help="export random weights")
    parser.add_argument("--small", type=Path, help="folder for graphs that tests use, and nothing else")
    arguments = parser.parse_args()
    logging.disable(logging.INFO)
    if arguments.small:
        write_small(arguments.small)
        return
    if not (arguments.work and arguments.out):
        parser.error("--work and --out are needed")
    data, weights = arguments.work / "asr.npz", arguments.work / "streaming_zipformer.pt"
    arguments.work.mkdir(parents=True, exist_ok=True)
    if not data.exists():
        asr.make_data(data)

    prepare(seed=6)
    clips, texts = asr.load_data(data)
    pieces = WordPieces(texts)
    model = zipformer_model(len(pieces.symbols))
    if weights.exists():
        model.load_state_dict(torch.load(weights))
    elif not arguments.untrained:
        order = shortest([len(clip) for clip in clips])
        texts = [texts[index] for index in order]
        learn(model, first_layers(model, [clips[index] for index in order]), texts, pieces, weights)
    write_files(model, pieces.symbols, arguments.out)


if __name__ == "__main__":
    main()
