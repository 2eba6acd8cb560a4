"""Small speech models as PyTorch's newest exporter writes them, untrained: how the graphs in tests/exported/ were made.

    python -m data.recipes.torch_exports tests/exported             # with the exporter's own opset
    python -m data.recipes.torch_exports FOLDER --opset 23          # its newest

`torch.onnx.export` (dynamo=True, the default since PyTorch 2.9) numbers nodes, `node_conv1d_3`, and notes the modules that they
come from in their metadata; it traces with torch.export, which freezes some lengths, declares shapes by symbolic names, and
leaves shape arithmetic to the graph. Each model here has the parts of a family of speech models.
"""

import argparse
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
import torch
from torch import nn

BANDS, WIDTH, TOKENS = 16, 16, 20
NEWEST_OPSET = 23  # torch.onnx._constants.ONNX_MAX_OPSET of PyTorch 2.13
KEPT = "pkg.torch.onnx.name_scopes"  # all of a node's metadata together is half of a small file


class HifiGan(nn.Module):
    """A vocoder of transposed and dilated convolutions (Kong et al. 2020)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_pre = nn.Conv1d(BANDS, WIDTH, 7, padding=3)
        self.ups = nn.ModuleList([nn.ConvTranspose1d(WIDTH, 16, 8, 4, padding=2), nn.ConvTranspose1d(16, 16, 4, 2, padding=1)])
        self.resblocks = nn.ModuleList([nn.Conv1d(16, 16, 3, dilation=d, padding=d) for d in (1, 3)])
        self.conv_post = nn.utils.parametrizations.weight_norm(nn.Conv1d(16, 1, 7, padding=3))

    def forward(self, mel: torch.Tensor) -> torch.Tensor:
        x = self.conv_pre(mel)
        for up in self.ups:
            x = up(nn.functional.leaky_relu(x, 0.1))
            x = sum(x + block(nn.functional.leaky_relu(x, 0.1)) for block in self.resblocks) / len(self.resblocks)
        return torch.tanh(self.conv_post(nn.functional.leaky_relu(x)))


class ConvNeXt(nn.Module):
    """A block of Vocos: depthwise convolution, LayerNorm, two linear layers with GELU, a scale per channel."""

    def __init__(self) -> None:
        super().__init__()
        self.dwconv = nn.Conv1d(WIDTH, WIDTH, 7, padding=3, groups=WIDTH)
        self.norm = nn.LayerNorm(WIDTH)
        self.pwconv1, self.pwconv2 = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)
        self.gamma = nn.Parameter(torch.full((WIDTH,), 0.3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(self.dwconv(x).transpose(1, 2))
        return x + (self.gamma * self.pwconv2(nn.functional.gelu(self.pwconv1(y)))).transpose(1, 2)


class Vocos(nn.Module):
    """A vocoder that predicts magnitude and phase, with the inverse transform as a transposed convolution (Siuzdak 2023)."""

    def __init__(self, n_fft: int = 32, hop: int = 8) -> None:
        super().__init__()
        self.embed = nn.Conv1d(BANDS, WIDTH, 7, padding=3)
        self.blocks = nn.ModuleList([ConvNeXt() for _ in range(2)])
        self.head = nn.Linear(WIDTH, n_fft + 2)
        bins = torch.arange(n_fft // 2 + 1)[:, None] * torch.arange(n_fft)[None, :] * (2 * torch.pi / n_fft)
        basis = torch.cat([bins.cos(), -bins.sin()]) * torch.hann_window(n_fft) / n_fft
        self.register_buffer("basis", basis[:, None, :])
        self.hop = hop

    def forward(self, mel: torch.Tensor) -> torch.Tensor:
        x = self.embed(mel)
        for block in self.blocks:
            x = block(x)
        magnitude, phase = self.head(x.transpose(1, 2)).transpose(1, 2).chunk(2, dim=1)
        magnitude = torch.clip(torch.exp(magnitude), max=100.0)
        spectrum = torch.cat([magnitude * torch.cos(phase), magnitude * torch.sin(phase)], dim=1)
        return nn.functional.conv_transpose1d(spectrum, self.basis, stride=self.hop)


class Estimator(nn.Module):
    """The vector field of a flow: a convolutional network that is told the time."""

    def __init__(self) -> None:
        super().__init__()
        self.time = nn.Sequential(nn.Linear(8, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH))
        self.inner, self.outer = nn.Conv1d(2 * BANDS, WIDTH, 3, padding=1), nn.Conv1d(WIDTH, BANDS, 3, padding=1)
        self.norm = nn.GroupNorm(4, WIDTH)

    def forward(self, x: torch.Tensor, mu: torch.Tensor, mask: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        angles = t * torch.exp(torch.arange(4, device=x.device) * -1.5)
        time = self.time(torch.cat([angles.sin(), angles.cos()])[None])[:, :, None]
        hidden = nn.functional.mish(self.norm(self.inner(torch.cat([x, mu], dim=1) * mask))) + time
        return self.outer(hidden * mask) * mask


class Matcha(nn.Module):
    """Text-to-speech by flow matching (Mehta et al. 2024): a masked encoder, two frames a token, noise, two Euler steps."""

    def __init__(self) -> None:
        super().__init__()
        self.emb = nn.Embedding(TOKENS, WIDTH)
        self.prenet = nn.Conv1d(WIDTH, WIDTH, 5, padding=2)
        self.norm = nn.LayerNorm(WIDTH)
        self.attention = nn.MultiheadAttention(WIDTH, 2, batch_first=True)
        self.proj = nn.Conv1d(WIDTH, BANDS, 1)
        self.estimator = Estimator()

    def forward(self, tokens: torch.Tensor, lengths: torch.Tensor, temperature: torch.Tensor) -> torch.Tensor:
        mask = torch.arange(tokens.shape[1], device=tokens.device)[None, :] < lengths[:, None]
        x = self.emb(tokens)
        x = self.norm(x + torch.relu(self.prenet(x.transpose(1, 2) * mask[:, None])).transpose(1, 2))
        x = x + self.attention(x, x, x, key_padding_mask=~mask, need_weights=False)[0]
        wide = mask[:, None].to(x.dtype).repeat_interleave(2, dim=2)
        mu = self.proj(x.transpose(1, 2)).repeat_interleave(2, dim=2) * wide
        z = torch.randn_like(mu) * temperature
        for step in range(2):
            z = z + 0.5 * self.estimator(z, mu, wide, torch.tensor([0.5 * step]))
        return z


class ConformerLayer(nn.Module):
    """Feed-forward, masked attention, gated depthwise convolution, each with its residual (Gulati et al. 2020)."""

    def __init__(self) -> None:
        super().__init__()
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 2 * WIDTH), nn.SiLU(), nn.Linear(2 * WIDTH, WIDTH)
        )
        self.norm_attention, self.norm_conv = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.pointwise = nn.Conv1d(WIDTH, 2 * WIDTH, 1)
        self.depthwise = nn.Conv1d(WIDTH, WIDTH, 7, padding=3, groups=WIDTH)
        self.batch_norm = nn.BatchNorm1d(WIDTH)

    def forward(self, x: torch.Tensor, padding: torch.Tensor) -> torch.Tensor:
        x = x + 0.5 * self.feed_forward(x)
        q, k, v = (part.unflatten(2, (2, -1)).transpose(1, 2) for part in self.qkv(self.norm_attention(x)).chunk(3, dim=-1))
        scores = (q @ k.transpose(2, 3) * (WIDTH // 2) ** -0.5).masked_fill(padding[:, None, None], -torch.inf)
        x = x + self.out((torch.softmax(scores, dim=-1) @ v).transpose(1, 2).flatten(2))
        y = nn.functional.glu(self.pointwise(self.norm_conv(x).transpose(1, 2)), dim=1).masked_fill(padding[:, None], 0.0)
        return x + nn.functional.silu(self.batch_norm(self.depthwise(y))).transpose(1, 2)


class Conformer(nn.Module):
    """A CTC recogniser: subsampling by two, conformer layers, log-probabilities and their number."""

    def __init__(self) -> None:
        super().__init__()
        self.subsampling = nn.Conv1d(BANDS, WIDTH, 3, stride=2, padding=1)
        self.layers = nn.ModuleList([ConformerLayer() for _ in range(2)])
        self.ctc = nn.Linear(WIDTH, TOKENS)

    def forward(self, features: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = torch.relu(self.subsampling(features.transpose(1, 2))).transpose(1, 2)
        halves = (lengths + 1) // 2
        padding = torch.arange(x.shape[1], device=x.device)[None, :] >= halves[:, None]
        for layer in self.layers:
            x = layer(x, padding)
        return torch.log_softmax(self.ctc(x), dim=-1), halves


class Lstm(nn.Module):
    """A recurrent network of two layers, one of them in both directions, with a linear layer behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = (
            nn.LSTM(BANDS, WIDTH, batch_first=True),
            nn.LSTM(WIDTH, 8, batch_first=True, bidirectional=True),
        )
        self.head = nn.Linear(16, TOKENS)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.head(self.second(self.first(features)[0])[0])


@dataclass(frozen=True)
class Recipe:
    """A model, and what it is traced with.

    Attributes:
        model: makes it.
        example: its inputs by name.
        times: input -> the axis that varies.
        outputs: names of what it returns.
    """

    model: Callable[[], nn.Module]
    example: Callable[[], dict[str, torch.Tensor]]
    times: dict[str, int]
    outputs: Sequence[str]


RECIPES = {
    "hifigan": Recipe(HifiGan, lambda: {"mel": torch.randn(1, BANDS, 30)}, {"mel": 2}, ["audio"]),
    "vocos": Recipe(Vocos, lambda: {"mel": torch.randn(1, BANDS, 30)}, {"mel": 2}, ["audio"]),
    "matcha": Recipe(
        Matcha,
        lambda: {
            "tokens": torch.randint(TOKENS, (1, 18)),
            "lengths": torch.tensor([18]),
            "temperature": torch.tensor([0.7]),
        },
        {"tokens": 1},
        ["mel"],
    ),
    "conformer": Recipe(
        Conformer,
        lambda: {"features": torch.randn(1, 40, BANDS), "lengths": torch.tensor([40])},
        {"features": 1},
        ["log_probs", "log_probs_len"],
    ),
    "lstm": Recipe(Lstm, lambda: {"features": torch.randn(1, 40, BANDS)}, {"features": 1}, ["log_probs"]),
}


def export(name: str, path: Path, *, opset: int | None = None, external_data: bool = False) -> None:
    """Writes one of the models with the newest exporter, its time axis dynamic, without the bulk of its metadata.

    Args:
        name: The key of the recipe.
        path: The file; its folder is made.
        opset: None: the exporter's own default.
        external_data: Weights in a file beside the graph.
    """
    torch.manual_seed(0)
    recipe = RECIPES[name]
    path.parent.mkdir(parents=True, exist_ok=True)
    example = recipe.example()
    # The first trace of a process leaves the length of an LSTM dynamic, later ones find it static: an error but for AUTO
    dim = torch.export.Dim.AUTO if name == "lstm" else torch.export.Dim.DYNAMIC
    dynamic = {key: {recipe.times[key]: dim} if key in recipe.times else None for key in example}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            recipe.model().eval(), (), kwargs=example, dynamo=True, opset_version=opset, verbose=False,
            input_names=list(example), output_names=list(recipe.outputs), dynamic_shapes=dynamic,
        )  # fmt: skip
    assert program is not None
    graph = program.model_proto
    del graph.metadata_props[:], graph.graph.metadata_props[:]
    for node in (*graph.graph.node, *(node for function in graph.functions for node in function.node)):
        kept = [entry for entry in node.metadata_props if entry.key == KEPT]
        del node.metadata_props[:]
        node.metadata_props.extend(kept)
        node.doc_string = ""
    for value in (*graph.graph.value_info, *graph.graph.initializer, *graph.graph.input, *graph.graph.output):
        del value.metadata_props[:]
    onnx.save(graph, path, save_as_external_data=external_data, location=f"{path.name}.data", size_threshold=256)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--opset", type=int)
    parser.add_argument("--external-data", action="store_true")
    arguments = parser.parse_args()
    for key in RECIPES:
        export(key, arguments.folder / f"{key}.onnx", opset=arguments.opset, external_data=arguments.external_data)
