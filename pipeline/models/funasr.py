"""What SenseVoice and Paraformer share as sherpa-onnx runs them: stacked features by the metadata, inputs in one order."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import onnx

from pipeline.errors import ConfigError, ModelError
from pipeline.models.ctc import Ctc
from pipeline.models.model_files import header_of, metadata_of
from pipeline.models.recogniser_families import FAMILIES, Family
from pipeline.paths import resolve_path

STACKED = ("vocab_size", "lfr_window_size", "lfr_window_shift")


@dataclass
class Funasr(Ctc):
    """A recogniser of FunASR: stacked frames (1, frames, 560), their number, ... -> logits (1, n, tokens), ...

    Attributes:
        family_name: in `FAMILIES`.
        called: in messages.
        numbers: of the metadata: what the client ends its process without.
    """

    family_name: ClassVar[str]
    called: ClassVar[str]
    numbers: ClassVar[tuple[str, ...]] = STACKED

    def check(self) -> None:
        """Check metadata, settings, inputs and token table.

        Raises:
            ModelError: something is missing, or does not fit.
            ConfigError: other features are asked for.
        """
        path, metadata, family = resolve_path(self.encoder), self._metadata, self.family
        if self.features not in (None, family.name):
            raise ConfigError(
                f"model.features: {self.features!r}; {self.called} has those of {family.name}. Leave the setting out."
            )
        for key in self.numbers:
            if key not in metadata:
                raise ModelError(f"{path}: its metadata has no {key}, which sherpa-onnx reads. Export it for sherpa-onnx.")
            self._number(key, 0)
        size, _, *both = self._stacking
        for key, values in zip(("neg_mean", "inv_stddev"), both, strict=True):
            if len(values) != size * family.fbank.bands:
                raise ModelError(
                    f"{path}: {key} of its metadata has {len(values)} numbers; {size} frames of {family.fbank.bands} bands "
                    f"need {size * family.fbank.bands}. Export it for sherpa-onnx."
                )
        names = tuple(value.name for value in self._given)
        if names != family.inputs:
            raise ModelError(
                f"{path} takes {', '.join(names)}; sherpa-onnx gives {', '.join(family.inputs)}, in this order. Another "
                "one is quantized as any ONNX file: model=onnx calibration=arrays."
            )
        count = self._number("vocab_size", 0)
        if count != len(self.tokens):
            raise ModelError(
                f"model.tokens_path: {self.token_table} has {len(self.tokens)} tokens; the metadata of {path} has "
                f"vocab_size={count}. They are of different models."
            )
        self.check_classes(self.encoder, "logits")

    @cached_property
    def family(self) -> Family:
        """What its client computes."""
        return FAMILIES[self.family_name]

    @property
    def _metadata(self) -> Mapping[str, str]:
        return metadata_of(self.encoder)

    @property
    def _given(self) -> list[onnx.ValueInfoProto]:
        """The inputs of the graph."""
        model = header_of(self.encoder)
        constants = set() if model is None else {tensor.name for tensor in model.graph.initializer}
        return [] if model is None else [value for value in model.graph.input if value.name not in constants]
