"""ONNX's own backend tests (the node and the simple models of the `onnx` package) through the pipeline: right, or refused.

    python benchmarks/robustness.py                 # prints the counts, and what is neither right nor refused
    python benchmarks/robustness.py --write         # writes them into docs/robustness.md as well
    python benchmarks/robustness.py --only reshape  # cases whose names hold this

Each case is a model and its inputs, as a user would give them: files. It goes through `load, inspect` as it is, and through
`load, quantize, evaluate` in each mode with its further inputs as constants, since these tests have no weights otherwise. Cases
run one after the other in a process that is replaced where one ends it. An outcome is
`right` (the run is done, and onnx.checker takes the artifact where it takes the original), `does not apply` (the mode says that
it would change nothing), `refused` (one error of the pipeline's own) or anything else, which is a fault.
"""

import argparse
import functools
import json
import logging
import multiprocessing
import re
import shutil
import sys
import tempfile
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from hydra import compose, initialize_config_dir

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from pipeline.config.compose import register_schemas, to_run_config  # noqa: E402
from pipeline.config.settings import RunConfig  # noqa: E402
from pipeline.errors import PipelineError  # noqa: E402
from pipeline.measure import benchmark_child, ort_profile  # noqa: E402
from pipeline.record.run_directory import RunDirectory  # noqa: E402
from pipeline.runner import run_stages  # noqa: E402

RUNS = {
    "load, inspect": ("dynamic", "[load,inspect]"),
    **{f"mode={mode}": (mode, "[load,quantize,evaluate]") for mode in ("dynamic", "static", "weight_only", "fp16", "optimize")},
}
LIMIT_S = 120.0  # of one case
DATA = [
    "model=onnx",
    "model.path=model.onnx",
    "calibration=arrays",
    "calibration.path=data.npz",
    "evaluation.path=data.npz",
    "evaluation.listen=0",
]

FINE = ("right", "does not apply", "refused")

Outcome = tuple[str, str]
"""(right, refused or the name of a fault; what was said)."""


def main() -> None:
    """Run, print and, if asked to, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="cases whose names hold this")
    parser.add_argument("--kinds", nargs="+", default=["node", "simple"], help="of tests, as onnx.backend.test names them")
    parser.add_argument("--runs", nargs="+", default=list(RUNS), choices=list(RUNS))
    parser.add_argument("--results", type=Path, help="a JSON file that outcomes are kept in, to go on where a call has ended")
    parser.add_argument("--write", action="store_true", help="write docs/robustness.md")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        names = [name for kind in arguments.kinds for name in write_cases(kind, arguments.only, Path(folder))]
        outcomes = collected(names, arguments.runs, Path(folder), arguments.results)
    text = page_of(outcomes, arguments.runs)
    print(text)
    if arguments.write:
        page = ROOT / "docs" / "robustness.md"
        head = page.read_text(encoding="utf-8").split("<!-- measured -->")[0]
        page.write_text(f"{head}<!-- measured -->\n\n{text}\n", encoding="utf-8")


def collected(names: list[str], runs: list[str], folder: Path, results: Path | None) -> dict[tuple[str, str], Outcome]:
    """Return the outcomes of all cases; those that a file has already are not found again."""
    lines = results.read_text(encoding="utf-8").splitlines() if results is not None and results.is_file() else []
    known = {(name, run): (kind, said) for name, run, kind, said in map(json.loads, lines)}
    wanted = [(name, run) for name in names for run in runs]
    for (name, run), (kind, said) in outcomes_of([case for case in wanted if case not in known], folder):
        known[name, run] = (kind, said)
        if results is not None:
            with results.open("a", encoding="utf-8") as file:
                file.write(json.dumps([name, run, kind, said]) + "\n")
    return {case: known[case] for case in wanted}


def write_cases(kind: str, only: str, folder: Path) -> list[str]:
    """Write each case as model.onnx and data.npz into a folder of its name; return the names.

    Inputs that an .npz cannot hold (sequences, optional values) are left out, so that the pipeline has to say that they are
    missing.
    """
    from onnx.backend.test.loader import load_model_tests

    names = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = load_model_tests(kind=kind)
    for case in cases:
        if only not in case.name:
            continue
        place = folder / case.name
        place.mkdir()
        if case.model is not None:
            model, inputs = case.model, list(case.data_sets[0][0]) if case.data_sets else []
            onnx.save(model, place / "model.onnx")
        else:
            shutil.copy(Path(case.model_dir) / "model.onnx", place)
            model = onnx.load(place / "model.onnx")
            files = sorted(Path(case.model_dir).glob("test_data_set_0/input_*.pb"), key=lambda f: int(f.stem.split("_")[1]))
            inputs = [onnx.numpy_helper.to_array(onnx.TensorProto.FromString(file.read_bytes())) for file in files]
        inputs = [onnx.numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value for value in inputs]
        arrays = dict(zip((value.name for value in model.graph.input), inputs, strict=False))
        given = {name: np.asarray(a) for name, a in arrays.items() if isinstance(a, np.ndarray | np.generic)}
        given = {name: array.astype(str) if array.dtype == object else array for name, array in given.items()}
        write_data(place / "data.npz", given)
        fixed = with_constants(model, given)
        onnx.save(fixed, place / "constants.onnx")
        write_data(
            place / "constants.npz", {value.name: given[value.name] for value in fixed.graph.input if value.name in given}
        )
        names.append(case.name)
    return names


def write_data(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write two equal samples as the pipeline reads them."""
    np.savez(path, **{f"{sample}/{name}": array for sample in "ab" for name, array in arrays.items()})


def with_constants(model: onnx.ModelProto, arrays: dict[str, np.ndarray]) -> onnx.ModelProto:
    """Return a model whose inputs are constants, where the test has values of them: all but the first."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    for value in list(fixed.graph.input)[1:]:
        array = arrays.get(value.name)
        if array is not None and array.dtype.kind in "fiub":
            fixed.graph.initializer.append(onnx.numpy_helper.from_array(array, value.name))
            fixed.graph.input.remove(value)
    fixed.ir_version = max(fixed.ir_version, 4)
    return fixed


def outcomes_of(cases: list[tuple[str, str]], folder: Path) -> Iterator[tuple[tuple[str, str], Outcome]]:
    """Yield (name, run) -> outcome, from a process that is replaced where a case ends it or takes too long."""
    context = multiprocessing.get_context("spawn")
    here: Connection | None = None
    process: Any = None
    for number, case in enumerate(cases):
        if process is None or not process.is_alive():
            here, there = context.Pipe()
            process = context.Process(target=work, args=(there, folder), daemon=True)
            process.start()
        assert here is not None
        here.send(case)
        try:
            outcome = here.recv() if here.poll(LIMIT_S) else ("too slow", f"more than {LIMIT_S:.0f} s")
        except EOFError:
            outcome = ("crash", "the process ended")
        if outcome[0] in ("too slow", "crash"):
            process.kill()
            process.join()
        yield case, outcome
        if sys.stderr.isatty():
            print(f"\r{number + 1} of {len(cases)}", end="", file=sys.stderr)


def work(connection: Connection, folder: Path) -> None:
    """Do one case after the other."""
    logging.disable(logging.CRITICAL)
    register_schemas()
    ort_profile.run_child = profile_here
    while True:
        try:
            name, run = connection.recv()
        except EOFError:  # all cases are done
            return
        connection.send(outcome_of(folder / name, run))


def outcome_of(place: Path, run: str) -> Outcome:
    """Return what comes of one case in one run."""
    out = place / run.replace(", ", "_").replace("=", "_")
    out.mkdir()
    try:
        config = config_of(run)
        original = place / ("model.onnx" if "inspect" in run else "constants.onnx")
        model = replace(config.model, path=str(original))
        data = str(place / ("data.npz" if "inspect" in run else "constants.npz"))
        config = replace(
            config,
            model=model,
            calibration=replace(config.calibration, path=data),
            evaluation=replace(config.evaluation, path=data),
        )
        report = run_stages(config, RunDirectory(out))
        if unchecked := [path.name for path in out.glob("*.onnx") if not is_valid(path) and is_valid(original)]:
            return "invalid file", ", ".join(unchecked)
        assert report is not None
    except PipelineError as error:
        nothing = any(words in str(error) for words in ("would change nothing", "nothing in the quantized graph"))
        return "does not apply" if nothing else "refused", str(error)
    except Exception as error:  # the faults that are looked for
        return type(error).__name__, " ".join(str(error).split())
    finally:
        shutil.rmtree(out)
    return "right", ""


@functools.cache
def config_of(run: str) -> RunConfig:
    """Return the settings of a run, to which a case's files are added."""
    mode, stages = RUNS[run]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return to_run_config(
            compose("config", ["model=onnx", "model.path=model.onnx", f"mode={mode}", f"stages={stages}", *DATA])
        )


def profile_here(folder: Path, task: str, samples: list[Any], what: str, **job: Any) -> dict[str, Any]:  # noqa: ANN401
    """Profile in this process: two thousand processes would take an hour to start."""
    del folder, what
    return benchmark_child.TASKS[task](job, [dict(sample.inputs) for sample in samples])


def is_valid(path: Path) -> bool:
    """Return whether onnx.checker takes a file."""
    try:
        onnx.checker.check_model(str(path))
    except Exception:  # the checker's errors share no base class
        return False
    return True


def page_of(outcomes: dict[tuple[str, str], Outcome], runs: list[str]) -> str:
    """Return the counts, the reasons of refusals and the faults in Markdown."""
    lines = [f"onnx {onnx.__version__}, {len({name for name, _ in outcomes})} cases.", ""]
    lines += ["| run | right | does not apply | refused | anything else |", "|---|---|---|---|---|"]
    for run in runs:
        kinds = Counter(kind for (_, other), (kind, _) in outcomes.items() if other == run)
        known = [kinds[kind] for kind in FINE]
        lines.append(f"| `{run}` | {' | '.join(map(str, known))} | {sum(kinds.values()) - sum(known)} |")
    reasons: dict[str, Counter[str]] = defaultdict(Counter)
    for (_, run), (kind, said) in outcomes.items():
        if kind == "refused":
            reasons[run][gist(said)] += 1
    for run in runs:
        lines += ["", f"Refused in `{run}`:", "", *(f"- {count}: {said}" for said, count in reasons[run].most_common(12))]
    faults = [f"- `{name}`, `{run}`: {kind}: {said[:300]}" for (name, run), (kind, said) in outcomes.items()
              if kind not in FINE]  # fmt: skip
    return "\n".join([*lines, "", "Anything else:", "", *(faults or ["nothing"])])


def gist(said: str) -> str:
    """Return a message without what differs from case to case: paths, names, numbers."""
    short = re.sub(r"/\S+/", "", " ".join(said.split()))
    short = re.sub(r"'[^']*'", "'…'", re.sub(r"\d+(\.\d+)*", "N", short))
    return short[:160] + ("…" if len(short) > 160 else "")


if __name__ == "__main__":
    main()
