"""What the doctor has found, in words."""

from pipeline.record.diagnosis import ModeTrial
from pipeline.record.results import TensorShape
from pipeline.report.schema import Report


def doctor_lines(report: Report) -> list[str]:
    """Return what was found of a model, a line for each thing; none where the doctor was not asked."""
    found = report.doctor
    if found is None:
        return []
    lines = [f"kind: model={found.kind}, because {found.because}", f"front end: {found.front_end}"]
    for graph, one in found.graphs.items():
        seen = (report.inspect or {}).get(graph)
        of = f" of {graph}" if len(found.graphs) > 1 else ""
        if seen is not None:
            lines.append(f"takes{of}: {_tensors(seen.inputs)}")
            lines.append(f"gives{of}: {_tensors(seen.outputs)}")
        fed_back = ", ".join(f"{output} goes back into {given}" for output, given in one.states.items())
        lines.append(f"states{of}: {fed_back or 'none: calls do not depend on each other'}")
        lines += [] if seen is None else seen.advice_on_states
        lines += [f"mode={trial.mode}{of}: {_trial(trial)}" for trial in one.trials]
        slow = ", ".join(f"{op} {100 * share:.0f} %" for op, share in one.float_time.items())
        lines.append(f"time{of} in operators that no mode makes integers of: {slow or 'none to speak of'}")
    data = "turns your data into arrays, once inputs_of in it is filled in"
    return [*lines, f"{found.script}, beside the report, {data}: calibration=arrays calibration.path=calib.npz"]


def _trial(trial: ModeTrial) -> str:
    if trial.why_not is not None:
        return f"does not work: {trial.why_not}"
    speed = "not timed" if trial.speedup is None else f"about {trial.speedup:.2f} times as fast as fp32 (timed quickly)"
    return f"{speed}, {trial.size_ratio or 0.0:.2f} of its size"


def _tensors(values: list[TensorShape]) -> str:
    def shape(value: TensorShape) -> str:
        sizes = ", ".join("?" if size is None else str(size) for size in value.shape or ())
        return "of any shape" if value.shape is None else f"({sizes})"

    return "; ".join(f"{value.name}: {value.type} {shape(value)}" for value in values)
