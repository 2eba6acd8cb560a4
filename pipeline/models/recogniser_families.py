"""What the clients of recognisers do before and after the graph, by family: each was trained on features of its own.

sherpa-onnx chooses by the loader that a user calls (`from_wenet_ctc`, `from_sense_voice`, ...). Here the metadata that its
exports carry tells, `model_type`, or the setting `model.features`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.audio.kaldi_fbank import FUNASR, ICEFALL, WENET, Fbank
from pipeline.errors import ModelError, did_you_mean


@dataclass(frozen=True)
class Family:
    """One family of recognisers.

    Attributes:
        name: the word in `model.features`.
        fbank: the features.
        inputs: what the graph takes, the features first and their number second; `()`: x and, if at all, x_lens.
        stacked: whether neighbouring frames are stacked and normalised, by what the metadata says.
        skipped: tokens at the start of each transcript that say something else: language, emotion, event, writing.
        is_ctc: whether repeats are merged and blanks removed; else each position is a token.
        model_types: `model_type` in the metadata.
        loader: how sherpa-onnx is given such a model: the method of `OfflineRecognizer`, the argument that names the graph, the
            option of its command, and the class in Kotlin.
    """

    name: str
    fbank: Fbank
    inputs: tuple[str, ...] = ()
    stacked: bool = False
    skipped: int = 0
    is_ctc: bool = True
    model_types: tuple[str, ...] = ()
    loader: tuple[str, str, str, str] = (
        "from_zipformer_ctc", "model", "zipformer-ctc-model", "OfflineZipformerCtcModelConfig",
    )  # fmt: skip


FAMILIES = {
    family.name: family
    for family in (
        Family(
            "icefall", ICEFALL,
            model_types=("zipformer2_ctc", "zipformer_ctc", "zipformer2", "zipformer", "conformer", "conformer_ctc", "lstm"),
        ),
        Family(
            "wenet", WENET, model_types=("wenet_ctc",),
            loader=("from_wenet_ctc", "model", "wenet-ctc-model", "OfflineWenetCtcModelConfig"),
        ),
        Family(
            "sense_voice", FUNASR, inputs=("x", "x_length", "language", "text_norm"), stacked=True, skipped=4,
            model_types=("sense_voice_ctc",),
            loader=("from_sense_voice", "model", "sense-voice-model", "OfflineSenseVoiceModelConfig"),
        ),
        Family(
            "paraformer", FUNASR, inputs=("speech", "speech_lengths"), stacked=True, is_ctc=False, model_types=("paraformer",),
            loader=("from_paraformer", "paraformer", "paraformer", "OfflineParaformerModelConfig"),
        ),
    )
}  # fmt: skip


def family_of(setting: str | None, metadata: Mapping[str, str], file: str) -> Family:
    """Return the family of a recogniser: the one that is set, or that its metadata names; icefall's where neither tells.

    Raises:
        ModelError: there is no such family.
    """
    if setting is not None:
        if setting not in FAMILIES:
            raise ModelError(f"model.features: there is no family {setting!r}.{did_you_mean(setting, FAMILIES)}")
        return FAMILIES[setting]
    model_type = metadata.get("model_type")
    if model_type is None:
        return FAMILIES["icefall"]
    found = next((family for family in FAMILIES.values() if model_type in family.model_types), None)
    if found is None:
        known = ", ".join(f"{family.name} ({', '.join(family.model_types)})" for family in FAMILIES.values())
        raise ModelError(
            f"{file}: its metadata has model_type={model_type!r}, and how that family computes features is not known. Known "
            f"are {known}. If it is fed like one of them, say so: model.features=icefall. Else give arrays: model=onnx."
        )
    return found
