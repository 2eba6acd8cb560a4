"""What the doctor finds: the report's `doctor`."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class ModeTrial:
    """A mode that was tried on a graph with its default settings.

    Attributes:
        mode: its name.
        speedup: times as fast as fp32 on the probe, measured quickly and without an interval; None: it does not work.
        size_ratio: size of its file over fp32's.
        why_not: why it does not work.
    """

    mode: str
    speedup: float | None = None
    size_ratio: float | None = None
    why_not: str | None = None


@dataclass(frozen=True)
class GraphDiagnosis:
    """One graph.

    Attributes:
        states: output -> the input that a caller feeds it back to.
        trials: what each mode would gain.
        float_time: operator type -> share of the time, 0 to 1, of the operators that no mode makes integers of.
    """

    states: dict[str, str]
    trials: list[ModeTrial]
    float_time: dict[str, float]


@dataclass(frozen=True)
class Diagnosis:
    """What was found of a model.

    Attributes:
        kind: the option of the group `model` that knows such a model; `onnx` where none does.
        because: by what it was recognised.
        front_end: how well fp32 itself does on the evaluation set, in a sentence.
        front_end_fits: whether that is as one would expect; None: not known.
        graphs: graph -> what was found of it.
        script: name of the file, in the run's directory, that turns data into arrays once it is filled in.
    """

    kind: str
    because: str
    front_end: str
    front_end_fits: bool | None
    graphs: dict[str, GraphDiagnosis] = field(default_factory=dict)
    script: str = "make_calib.py"
