"""All metrics, and everything that is known of each one: the only place outside of the scorers that names a metric.

What other modules need of a metric (how it is averaged, what stands for it in a search, where a page shows it) is a field here;
they derive their tables from it. Importing this module loads no numerical library, so that a config can be checked against the
names at no cost.
"""

import math
from dataclasses import dataclass
from enum import Enum

from pipeline.evaluation_kind import EvaluationKind

TENSORS, AUDIO, TTS, ASR = EvaluationKind.tensors, EvaluationKind.audio, EvaluationKind.tts, EvaluationKind.asr
EVERY_KIND = tuple(EvaluationKind)


class Source(Enum):
    """What a metric is computed from."""

    tensors = "the output tensors"
    exact = "outputs that are equal or are not: token ids, classes, decisions, lengths"
    spectrogram = "mel spectrograms"
    audio = "audio: a text-to-speech model needs its vocoder for it"
    fault = "audio of which each sample is looked at for what no speech is"
    posteriors = "posteriors of a recogniser"
    lengths = "predicted lengths"
    transcripts = "recognised text"
    decisions = "an output that holds one probability a step"
    enhanced = "the audio of a denoiser, and the clean speech that noise was added to"
    tokens = "the tokens of a recogniser that goes on from its own, one by one"
    silence = "what a recogniser writes where nobody speaks: evaluation.silent_clips"
    classes = "the classes of a classifier, whose labels must be given"


class Aggregate(Enum):
    """How the values of single samples become the value of all."""

    mean = "mean over samples"
    word_rate = "word errors of all samples over words of all"
    character_rate = "character errors of all samples over characters of all"
    deletion_rate = "words of all samples that are left out over words of all"


@dataclass(frozen=True, kw_only=True)
class Metric:
    """What a number in the report means.

    Attributes:
        name: its key in the report and in `evaluation.metrics`.
        description: one line for people.
        source: what it is computed from.
        evaluations: the kinds of evaluation that compute it.
        unit: of the value; empty where it has none.
        higher_is_better: the direction of a gain.
        version: raised whenever the same outputs would give another value than before.
        baseline: the value that a model gives against itself (0, 1 or infinite); None for a metric against the truth,
            which is measured for fp32 and for the quantized model alike.
        aggregate: how the values of single samples become the value of all.
        proxy: a metric that stands for this one where single nodes are compared: it changes long before a word or a class
            does. None where this one is fine enough itself.
        default_limit: how much worse than fp32 a search may make it where the user gives no limit; None: the user must.
        default_of: kinds of evaluation in which a search uses it where the user names no metric.
        priority: its place in the order in which a report is read, the smallest first; None: after those that have one.
        title: its name for people, at the top of a page; None: it is not among the metrics shown there.
        compared: what its value is compared with, in the words of a page; of a metric against fp32.
        expected: of a metric against the truth: fp32's value up to which its front end fits the data, and from which it does
            not; between, it may.
        hub_name: what model cards of Hugging Face call it; None: they do not know it.
        of_sample: whether it is shown for single samples, beside the metric that they are sorted by.
    """

    name: str
    description: str
    source: Source
    evaluations: tuple[EvaluationKind, ...]
    unit: str = ""
    higher_is_better: bool = False
    version: int = 1
    baseline: float | None = 0.0
    aggregate: Aggregate = Aggregate.mean
    proxy: str | None = None
    default_limit: float | None = None
    default_of: tuple[EvaluationKind, ...] = ()
    priority: int | None = None
    title: str | None = None
    compared: str = "away from fp32’s"
    expected: tuple[float, float] | None = None
    hub_name: str | None = None
    of_sample: bool = False

    @property
    def against_truth(self) -> bool:
        """Whether it compares with the truth, and not with fp32's output."""
        return self.baseline is None

    @property
    def is_error_rate(self) -> bool:
        """Whether it counts wrong words or characters, in percent of all."""
        return self.aggregate is not Aggregate.mean

    @property
    def needs_audio(self) -> bool:
        """Whether a text-to-speech model must make its speech audible first."""
        return self.source in (Source.audio, Source.fault)

    @property
    def of_outputs(self) -> bool:
        """Whether it is computed for each output of a graph."""
        return self.source in (Source.tensors, Source.exact)

    @property
    def needs_scorer(self) -> bool:
        """Whether it needs more than the outputs of both models: a truth, or something that turns outputs into others."""
        return not self.of_outputs and self.source is not Source.posteriors


# Default limits are differences that are hard to hear or hardly change a result. In nats of the log-mel: noise of 0.1 nat on
# every band is 0.9 dB. Of posteriors: transcripts change from about 0.01 nat on.
_TABLE = (
    # Against the fp32 output, for any model.
    Metric(
        name="mse", description="mean squared difference from the fp32 output", source=Source.tensors, evaluations=EVERY_KIND,
        version=2, priority=100,
    ),
    Metric(
        name="relative_error", description="mean |difference| over mean |fp32 output|; of integers, the share that differs",
        source=Source.tensors, evaluations=EVERY_KIND, version=2, default_limit=0.05, default_of=(TENSORS,), priority=90,
    ),
    Metric(
        name="sqnr_db", description="power of the fp32 output over power of the difference, where there is one",
        source=Source.tensors, evaluations=EVERY_KIND, unit="dB", higher_is_better=True, version=3, baseline=math.inf,
        priority=70, title="Signal to noise", compared="against fp32, higher is better", of_sample=True,
    ),
    Metric(
        name="cosine", description="cosine similarity to the fp32 output", source=Source.tensors, evaluations=EVERY_KIND,
        higher_is_better=True, version=2, baseline=1.0, default_limit=0.01,
    ),
    Metric(
        name="max_abs_error", description="largest absolute difference from the fp32 output", source=Source.tensors,
        evaluations=EVERY_KIND, version=2, of_sample=True,
    ),
    Metric(
        name="agreement_percent", description="share of token ids, classes, decisions and lengths that are fp32's",
        source=Source.exact, evaluations=EVERY_KIND, unit="%", higher_is_better=True, baseline=100.0, default_limit=1.0,
        proxy="relative_error", priority=110,
    ),
    # Against the fp32 output: audio, mels, posteriors, durations.
    Metric(
        name="log_mel_l1", description="mean absolute difference of natural-log mels from fp32's", source=Source.spectrogram,
        evaluations=(AUDIO, TTS), unit="nat", default_limit=0.1, default_of=(AUDIO, TTS), priority=60,
        title="Log-mels moved by",
    ),
    Metric(
        name="mcd_db", description="mel cepstral distortion from fp32's, coefficients 1 to 13", source=Source.spectrogram,
        evaluations=(AUDIO, TTS), unit="dB", default_limit=1.0, of_sample=True,
    ),
    Metric(
        name="mr_stft", description="multi-resolution STFT distance from fp32's audio", source=Source.audio,
        evaluations=(AUDIO, TTS), default_limit=0.2, priority=80,
    ),
    Metric(
        name="posterior_kl", description="KL divergence of the posteriors from fp32's, mean over frames",
        source=Source.posteriors, evaluations=(ASR,), unit="nat", default_limit=0.005, default_of=(ASR,), priority=50,
        title="Posteriors moved by", compared="KL divergence from fp32",
    ),
    Metric(
        name="next_token_percent", description="share of steps at which fp32's next token is chosen, after fp32's tokens",
        source=Source.tokens, evaluations=(ASR,), unit="%", higher_is_better=True, baseline=100.0, default_limit=1.0,
        proxy="posterior_kl",
    ),
    Metric(
        name="same_until_percent", description="share of fp32's tokens before the first that differs, each after its own",
        source=Source.tokens, evaluations=(ASR,), unit="%", higher_is_better=True, baseline=100.0, proxy="posterior_kl",
        default_limit=5.0,
    ),
    Metric(
        name="duration_mae_frames", description="mean absolute difference of lengths from fp32's", source=Source.lengths,
        evaluations=(TTS,), unit="frames", default_limit=1.0,
    ),
    Metric(
        name="decision_auc", description="area under the ROC curve of probabilities, against fp32's decisions at 0.5",
        source=Source.decisions, evaluations=(TENSORS,), higher_is_better=True, baseline=1.0, proxy="relative_error",
        default_limit=0.01,
    ),
    Metric(
        name="segment_f1", description="F1 score of active segments, against fp32's: as the client decides, or at 0.5",
        source=Source.decisions, evaluations=(TENSORS,), higher_is_better=True, baseline=1.0, proxy="relative_error",
        default_limit=0.05, priority=45, title="Segments of speech found", compared="F1 against fp32’s, higher is better",
    ),
    # Against the truth: one value for fp32, one for the quantized model.
    Metric(
        name="si_sdr_db", description="scale-invariant signal-to-distortion ratio against the clean speech",
        source=Source.enhanced, evaluations=(AUDIO,), unit="dB", higher_is_better=True, baseline=None, proxy="relative_error",
        default_limit=0.5, priority=42, title="Signal to distortion",
    ),
    Metric(
        name="pause_floor_db", description="level of what is left where nothing is said, against full scale",
        source=Source.enhanced, evaluations=(AUDIO,), unit="dB", baseline=None, proxy="relative_error", default_limit=3.0,
        priority=43, title="Level in pauses",
    ),
    Metric(
        name="wer_percent", description="word error rate of the recognised text", source=Source.transcripts,
        evaluations=(ASR,), unit="%", baseline=None, aggregate=Aggregate.word_rate, proxy="posterior_kl", default_limit=0.3,
        priority=10, title="Word error rate", expected=(20.0, 50.0), hub_name="wer",
    ),
    Metric(
        name="cer_percent", description="character error rate of the recognised text", source=Source.transcripts,
        evaluations=(ASR,), unit="%", baseline=None, aggregate=Aggregate.character_rate, proxy="posterior_kl",
        default_limit=0.3, expected=(20.0, 50.0), hub_name="cer",
    ),
    Metric(
        name="deletion_percent", description="share of the words that are left out of the recognised text",
        source=Source.transcripts, evaluations=(ASR,), unit="%", baseline=None, aggregate=Aggregate.deletion_rate,
        proxy="posterior_kl",
    ),
    Metric(
        name="hallucination_percent", description="share of clips of silence and noise in which words are heard",
        source=Source.silence, evaluations=(ASR,), unit="%", baseline=None, proxy="posterior_kl",
    ),
    Metric(
        name="roundtrip_wer_percent", description="word error rate of an ASR that hears the synthesised speech",
        source=Source.audio, evaluations=(TTS,), unit="%", baseline=None, aggregate=Aggregate.word_rate, proxy="log_mel_l1",
        default_limit=1.0, priority=20, title="Word error rate, heard", expected=(20.0, 50.0),
    ),
    # What no speech is: of each sample, the worst of which counts (`evaluate/broken_speech.py`).
    Metric(
        name="full_scale_percent", description="share of the speech at full scale or beyond it", source=Source.fault,
        evaluations=(TTS,), unit="%", baseline=None, proxy="log_mel_l1", default_limit=1.0,
    ),
    Metric(
        name="dc_offset", description="distance of the mean of the speech from zero, of full scale", source=Source.fault,
        evaluations=(TTS,), baseline=None, proxy="log_mel_l1", default_limit=0.02,
    ),
    Metric(
        name="accuracy_percent", description="share of the classes that are right", source=Source.classes,
        evaluations=(TENSORS,), unit="%", higher_is_better=True, baseline=None, proxy="relative_error", default_limit=0.5,
        priority=30, title="Accuracy",
    ),
    Metric(
        name="truth_log_mel_l1", description="mean absolute difference of natural-log mels from the recording's",
        source=Source.spectrogram, evaluations=(AUDIO,), unit="nat", baseline=None, proxy="log_mel_l1", default_limit=0.03,
        priority=40, title="Log-mel error", expected=(0.4, 0.6),
    ),
    Metric(
        name="truth_mr_stft", description="multi-resolution STFT distance from the recording", source=Source.audio,
        evaluations=(AUDIO,), baseline=None, proxy="mr_stft", default_limit=0.1,
    ),
)  # fmt: skip

METRICS: dict[str, Metric] = {metric.name: metric for metric in _TABLE}
SIGNAL_TO_NOISE = "sqnr_db"
"""The metric that single outputs and nodes are compared by."""


def metrics_of(kind: EvaluationKind) -> tuple[str, ...]:
    """Return the metrics that a kind of evaluation computes."""
    return tuple(name for name, metric in METRICS.items() if kind in metric.evaluations)


def in_reading_order() -> tuple[str, ...]:
    """Return all metrics in the order in which a report is read."""
    ranked = sorted(METRICS.values(), key=lambda metric: math.inf if metric.priority is None else metric.priority)
    return tuple(metric.name for metric in ranked)


def leading_metrics() -> tuple[str, ...]:
    """Return the metrics that a report is read by first: those that users know, then those that change sooner."""
    return tuple(name for name in in_reading_order() if METRICS[name].title is not None)


def sample_metrics() -> tuple[str, ...]:
    """Return the metrics that tell of a single sample how much it has changed, the most telling one first.

    They are finer than an error rate, which is zero for most samples, and worse where larger.
    """
    return tuple(name for name in in_reading_order() if METRICS[name].priority is not None and METRICS[name].baseline == 0.0)


def proxy_of(name: str) -> str:
    """Return the metric that stands for one where single nodes are compared; itself where it is fine enough."""
    return METRICS[name].proxy or name


def default_metric(
    kind: EvaluationKind, *, labels: bool = False, audio_only: bool = False, source: Source | None = None
) -> str:
    """Return the metric that a search keeps to where the user names none.

    Args:
        kind: of the evaluation.
        labels: the classes of the samples are known.
        audio_only: nothing but the audio depends on the graph: a vocoder of a text-to-speech model.
        source: what a model of this sort is judged by, where that is not what the kind of evaluation says.
    """
    of_kind = [METRICS[name] for name in metrics_of(kind)]
    if audio_only:
        return next(metric.name for metric in of_kind if metric.needs_audio and not metric.against_truth)
    if source is not None and any(metric.source is source for metric in of_kind):
        return next(metric.name for metric in of_kind if metric.source is source and metric.title is not None)
    if labels:
        return next(metric.name for metric in of_kind if metric.source is Source.classes)
    return next(metric.name for metric in of_kind if kind in metric.default_of)
