"""What recognisers share whatever they compute from a recording: a token table, words, and how a client is handed them."""

from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import numpy.typing as npt

from pipeline.audio.kaldi_resample import kaldi_resample
from pipeline.errors import DataError
from pipeline.evaluation_kind import EvaluationKind
from pipeline.models.client_layout import ClientFile
from pipeline.models.model_files import ModelFiles
from pipeline.models.speech_model import ReadAudio
from pipeline.models.text.tokens import read_tokens
from pipeline.paths import resolve_path
from pipeline.sample import Sample
from pipeline.utterance import Utterance

WORD_START = "\u2581"  # how sentencepiece writes the space before a word


@dataclass
class WordRecogniser(ModelFiles):
    """A recogniser with a token table in plain text.

    Attributes:
        tokens_path: a line `<token> <id>` each; null: tokens.txt in `dir` or beside the model.
    """

    tokens_path: str | None = None
    _: KW_ONLY
    evaluations: ClassVar[frozenset[EvaluationKind]] = frozenset({EvaluationKind.asr, EvaluationKind.tensors})

    @property
    def encoder(self) -> str:
        """The encoder's file."""
        raise NotImplementedError

    @property
    def rate_of_audio_hz(self) -> int:
        """The sample rate of what `sample_of_audio` takes."""
        raise NotImplementedError

    def sample_of_audio(self, name: str, audio: npt.NDArray[np.float32]) -> Sample:
        """Return the inputs for mono audio (samples,) in [-1, 1]."""
        raise NotImplementedError

    def sample(self, utterance: Utterance, read_audio: ReadAudio) -> Sample:
        """Return the features of a recording, and their number.

        Raises:
            DataError: the utterance has no audio.
        """
        if utterance.audio is None:
            raise DataError(f"utterance {utterance.id!r} has no audio; {self.name} is fed with recordings.")
        return self.sample_of_audio(utterance.id, read_audio(utterance.audio, self.rate_of_audio_hz))

    def resample(self, audio: npt.NDArray[np.float32], from_hz: int, to_hz: int) -> npt.NDArray[np.float32]:
        """Resample audio (samples,) as the client of a recogniser does."""
        return kaldi_resample(audio, from_hz, to_hz)

    def words(self, ids: npt.NDArray[np.integer] | list[int]) -> str:
        """Return the words that token ids spell."""
        return "".join(self.tokens[index] for index in ids).replace(WORD_START, " ").strip()

    @property
    def token_table(self) -> Path:
        """The file of the token table, which may be missing."""
        if self.tokens_path:
            return resolve_path(self.tokens_path)
        return self.beside("tokens.txt", self.encoder) or resolve_path(self.encoder).parent / "tokens.txt"

    def without_noise(self) -> Self:
        """Return the model: it draws none."""
        return self

    def client_input(self, utterance: Utterance) -> str | None:
        """Return the path of the recording."""
        return None if utterance.audio is None else str(utterance.audio)

    @property
    def _tokens_for_client(self) -> ClientFile:
        return ClientFile("tokens.txt", "tokens", "tokens", source=self.token_table)

    @cached_property
    def tokens(self) -> list[str]:
        """The token table, by id.

        Raises:
            DataError: the file is missing, or a line is not `<token> <id>`, or ids are left out.
        """
        path = self.token_table
        table = read_tokens(path, "model.tokens_path")
        by_id = {index: token for token, index in table.items()}
        for index in range(len(by_id)):
            if index not in by_id:
                raise DataError(f"model.tokens_path: {path}: no token has the id {index}, but there are {len(by_id)} tokens.")
        return [by_id[index] for index in range(len(by_id))]
