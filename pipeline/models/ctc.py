"""CTC recognisers as sherpa-onnx runs them: Kaldi features become log-probabilities of tokens."""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from pipeline.config import EvaluationKind
from pipeline.dataset import Utterance, find
from pipeline.errors import DataError
from pipeline.metrics.text import ctc_greedy
from pipeline.models import Outputs, ReadAudio
from pipeline.samples import Sample

WORD_START = "\u2581"  # how sentencepiece writes the space before a word


@dataclass
class Ctc:
    """A CTC encoder: x (1, frames, 80), x_lens (1,) -> log_probs (1, frames', tokens), log_probs_len (1,).

    Attributes:
        name: the model's name in paths and in the report.
        path: the ONNX file.
        tokens_path: a line `<token> <id>` each; null: tokens.txt beside the model.
        calibration_path: manifest of recordings.
        evaluation_path: manifest of recordings with text.
        sample_rate_hz: of the recordings.
    """

    name: str
    path: str
    tokens_path: str | None = None
    calibration_path: str | None = None
    evaluation_path: str | None = None
    sample_rate_hz: int = 16_000
    evaluations: ClassVar[frozenset[EvaluationKind]] = frozenset({EvaluationKind.asr, EvaluationKind.tensors})

    @property
    def graphs(self) -> dict[str, str]:
        """The encoder."""
        return {"encoder": self.path}

    @property
    def companions(self) -> dict[str, str]:
        """None."""
        return {}

    def sample(self, utterance: Utterance, read_audio: ReadAudio) -> Sample:
        """Return the features (1, frames, 80) of a recording, and their number.

        Raises:
            DataError: the utterance has no audio.
        """
        if utterance.audio is None:
            raise DataError(f"utterance {utterance.id!r} has no audio; {self.name} is fed with recordings.")
        return self.sample_of_audio(utterance.id, read_audio(utterance.audio, self.sample_rate_hz))

    def sample_of_audio(self, name: str, audio: npt.NDArray[np.float32]) -> Sample:
        """Return the inputs for mono audio (samples,) in [-1, 1]."""
        features = kaldi_fbank(audio, self.sample_rate_hz)
        return Sample(name, {"x": features[None], "x_lens": np.array([len(features)], dtype=np.int64)})

    def posteriors(self, outputs: Outputs) -> npt.NDArray[np.float32]:
        """Return the log-probabilities (frames, tokens) of the frames that are speech."""
        return np.asarray(outputs["log_probs"][0, : int(outputs["log_probs_len"][0])], dtype=np.float32)

    def transcript(self, outputs: Outputs) -> str:
        """Return the words of the greedy path."""
        posteriors = self.posteriors(outputs)
        tokens = ctc_greedy(posteriors, len(posteriors), blank_id=0)
        return "".join(self.tokens[token] for token in tokens).replace(WORD_START, " ").strip()

    def audio_seconds(self, sample: Sample, outputs: Outputs) -> float | None:
        """Return the duration of the recording: frames of 10 ms."""
        del outputs
        return float(sample.inputs["x"].shape[1] * 0.01)

    @cached_property
    def tokens(self) -> list[str]:
        """The token table, by id.

        Raises:
            DataError: the file is missing, or a line is not `<token> <id>` in the order of the ids.
        """
        path = find(self.tokens_path) if self.tokens_path else find(self.path).parent / "tokens.txt"
        if not path.is_file():
            raise DataError(f"model.tokens_path: there is no file {path}: a line '<token> <id>' for each output class.")
        table = []
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines()):
            token, _, index = line.rpartition(" ")
            if index != str(number):
                raise DataError(f"model.tokens_path: {path}, line {number + 1}: expected '<token> {number}', found {line!r}.")
            table.append(token)
        return table


def kaldi_fbank(audio: npt.NDArray[np.float32], sample_rate_hz: int) -> npt.NDArray[np.float32]:
    """Return Kaldi's log filter-bank energies (frames, 80), as icefall's models are trained on.

    Frames of 25 ms every 10 ms, upper edge 400 Hz below Nyquist, no dither, the last frame padded. Audio is (samples,) in
    [-1, 1].
    """
    import kaldi_native_fbank as knf

    options = knf.FbankOptions()
    options.frame_opts.dither = 0
    options.frame_opts.snip_edges = False
    options.frame_opts.samp_freq = sample_rate_hz
    options.mel_opts.num_bins = 80
    options.mel_opts.high_freq = -400
    extractor = knf.OnlineFbank(options)
    extractor.accept_waveform(sample_rate_hz, audio.tolist())
    extractor.input_finished()
    frames = [extractor.get_frame(index) for index in range(extractor.num_frames_ready)]
    if not frames:
        raise DataError(f"a recording of {len(audio)} samples is too short for one frame of 25 ms.")
    return np.stack(frames).astype(np.float32)
