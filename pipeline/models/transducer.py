"""Transducers as icefall exports them: encoder, decoder and joiner are three graphs, and a search produces words from them."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from pipeline.errors import ModelError
from pipeline.models.client_layout import ClientFile, ClientLayout, Task
from pipeline.models.ctc import Recogniser
from pipeline.models.model_files import header_of, metadata_of, number_in
from pipeline.models.speech_model import Run
from pipeline.paths import resolve_path
from pipeline.sample import Outputs, Sample

BLANK = 0
PARTS = ("encoder", "decoder", "joiner")


@dataclass
class Transducer(Recogniser):
    """A Zipformer, Conformer or LSTM transducer with a stateless decoder, as `zipformer/export-onnx.py` writes it.

    encoder: x (1, frames, 80), x_lens (1,) -> encoder_out (1, frames', dim), encoder_out_lens (1,);
    decoder: y (1, context) -> decoder_out (1, dim); joiner: encoder_out (1, dim), decoder_out (1, dim) -> logit (1, tokens).

    Attributes:
        dir: a directory with encoder-*.onnx, decoder-*.onnx, joiner-*.onnx and tokens.txt.
    """

    @property
    def graphs(self) -> dict[str, str]:
        """The three graphs.

        Raises:
            ModelError: model.dir is not set, or lacks one of them.
        """
        if self.dir is None:
            raise ModelError("model.dir: not set: name the directory that holds encoder-*.onnx, decoder-*.onnx, joiner-*.onnx.")
        return {part: self.named(part, f"{part}-*.onnx", f"{part}.onnx", f"*{part}*.onnx") for part in PARTS}

    @property
    def encoder(self) -> str:
        """The encoder's file."""
        return self.graphs["encoder"]

    @cached_property
    def context_size(self) -> int:
        """How many tokens the decoder looks back at.

        Raises:
            ModelError: neither the metadata nor the graph has it.
        """
        path = self.graphs["decoder"]
        size = number_in(metadata_of(path), "context_size", path)
        model = header_of(path)
        if size is None and model is not None:
            size = model.graph.input[0].type.tensor_type.shape.dim[1].dim_value
        if not size:
            raise ModelError(
                f"{resolve_path(path)}: its metadata has no context_size, the number of tokens that the decoder looks at."
            )
        return size

    def check(self) -> None:
        """Check that the three graphs and the token table fit each other.

        Raises:
            ModelError: they do not.
        """
        self.check_inputs()
        _ = self.context_size
        self.check_classes(self.graphs["joiner"], "logit")
        decoder = self.graphs["decoder"]
        tokens = number_in(metadata_of(decoder), "vocab_size", decoder)
        if tokens is not None and tokens != len(self.tokens):
            raise ModelError(
                f"{resolve_path(decoder)}: its metadata has vocab_size={tokens}, but tokens.txt has {len(self.tokens)} "
                "tokens. They are of different models; name the right table with model.tokens_path."
            )

    def client_layout(self) -> ClientLayout:
        """Return what sherpa-onnx is given: the three graphs and the token table."""
        graphs = [ClientFile(f"{part}.onnx", part, part, graph=part) for part in PARTS]
        return ClientLayout(Task.listen, "from_transducer", "OfflineTransducerModelConfig", (*graphs, self._tokens_for_client))

    def infer(self, sample: Sample, run: Run) -> Outputs:
        """Return the encoder's outputs, and what a greedy search with at most one token a frame makes of them.

        That is the tokens (count,), the path (frames,), which is what each frame says, or the blank, and the logits (frames,
        tokens) that it was chosen by.
        """
        outputs = run("encoder", sample)
        path, logits = self._searched(sample.id, outputs, run)
        return {**outputs, "tokens": path[path != BLANK], "path": path, "logits": logits}

    def given_decisions(self, sample: Sample, run: Run, decided: Outputs) -> Outputs:
        """Return the logits (frames, tokens) where each frame says what it says in other outputs, whatever it would have."""
        return {"logits": self._searched(sample.id, run("encoder", sample), run, decided["path"])[1]}

    def posteriors(self, outputs: Outputs) -> npt.NDArray[np.float32]:
        """Return the logits (frames, tokens) of each frame."""
        return np.asarray(outputs["logits"], np.float32)

    def _searched(
        self, name: str, outputs: Outputs, run: Run, decided: npt.NDArray[np.generic] | None = None
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Return what each frame says in a greedy search, or was decided to say, and the logits of each."""
        (states, *lengths), context = list(outputs.values()), self.context_size
        frames = np.asarray(states, dtype=np.float32)[0, : int(lengths[0][0]) if lengths else None]
        decoder, joiner = (self._inputs(part) for part in ("decoder", "joiner"))
        found = [BLANK] * context

        def look_back() -> npt.NDArray[np.generic]:
            y = np.array([found[-context:]], dtype=np.int64)
            outputs = run("decoder", Sample(f"{name}.{len(found) - context}", {decoder[0]: y}))
            return np.asarray(next(iter(outputs.values())))

        state, path = look_back(), np.full(len(frames), BLANK, np.int64)
        rows = np.zeros((len(frames), len(self.tokens)), np.float32)
        for number, frame in enumerate(frames):
            given = Sample(f"{name}.{number}", {joiner[0]: frame[None], joiner[1]: state})
            rows[number] = np.asarray(next(iter(run("joiner", given).values()))).reshape(-1)
            path[number] = rows[number].argmax() if decided is None else decided[number]
            if path[number] != BLANK:
                found.append(int(path[number]))
                state = look_back()
        return path, rows

    def transcript(self, outputs: Outputs) -> str:
        """Return the words that the search found."""
        return self.words([int(token) for token in outputs["tokens"]])

    def _inputs(self, part: str) -> list[str]:
        model = header_of(self.graphs[part])
        if model is None:
            raise ModelError(f"model.dir: {self.graphs[part]} is not an ONNX model.")
        constants = {tensor.name for tensor in model.graph.initializer}
        return [value.name for value in model.graph.input if value.name not in constants]
