"""Paraformer as sherpa-onnx runs it: the graph decides how many tokens there are, and gives all of them at once."""

from dataclasses import dataclass
from typing import ClassVar

from pipeline.errors import DataError
from pipeline.models.funasr import Funasr

END = "</s>"


@dataclass
class Paraformer(Funasr):
    """Paraformer: speech (1, frames, 560), speech_lengths (1,) -> logits (1, n, tokens), token_num (1,), where n is its choice.

    A predictor weighs the frames; a token is as many of them as weigh one (continuous integrate-and-fire; Gao et al.,
    Paraformer, Interspeech 2022). What computes the weights stays in float: see `pipeline.graph.shape_deciding`.

    Attributes:
        path: model.onnx.
        dir: a directory such as sherpa-onnx-paraformer-zh-2024-03-09: model.onnx and tokens.txt.
        features: paraformer, or null: no others fit.
    """

    family_name: ClassVar[str] = "paraformer"
    called: ClassVar[str] = "Paraformer"

    def check(self) -> None:
        """Check metadata, settings, inputs and token table.

        Raises:
            ModelError: something is missing, or does not fit.
            ConfigError: other features are asked for.
            DataError: the token table has no end of a sentence, which the client looks for.
        """
        super().check()
        if END not in self.tokens:
            raise DataError(
                f"model.tokens_path: {self.token_table} has no token {END}, at which sherpa-onnx ends a transcript."
            )
