"""Mutated models, settings, recordings and arrays: each must end well, or in an error that a user can act on.

    python tests/fuzz.py --models 10000 --configs 2000 --data 2000

A worker process takes one seed after the other; this one watches it. What is counted for every seed: `fine`, or `refused` (an
error that a user can act on), or what must not be: an exception of another kind, the end of the worker by a signal, more than
`--seconds` for one seed, a file that was written outside of the folder of the run. A seed says all: `--models 1 --first 4711`
makes that one again, with its traceback. Nothing that was mutated is kept.
"""

import argparse
import contextlib
import functools
import json
import os
import random
import select
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
KINDS = ("models", "configs", "data")
BASES = ("conformer", "hifigan", "lstm", "matcha", "vocos")  # tests/exported
SHIPPED = ("vocoder/vocos.onnx", "asr/model.onnx")  # now and then: they are a hundred times as large
MODES = ("dynamic", "static", "weight_only", "fp16", "optimize")
NUMBERS = (0, 1, -1, 2, 7, 255, -128, 2**31 - 1, -(2**31), 2**32, 2**62, -(2**63), 2**63 - 1)
TEXTS = (
    "",
    "x",
    "\n",
    "../../etc",
    "<script>alert(1)</script>",
    "名",
    "a" * 5000,
    "\ud7ff",
    "${oc.env:HOME}",
    "%s{}",
    "/",
    "NaN",
)
LIMITS = ("limits.opening_seconds=20", "limits.memory_mb=1500", "limits.sample_mb=100")


# Models


def mutated_model(seed: int) -> bytes:
    """Return a model with one to four changes."""
    import onnx

    rng = random.Random(seed)
    if rng.random() < 0.02:
        path = REPO / "data" / "models" / rng.choice(SHIPPED)
    else:
        path = REPO / "tests" / "exported" / f"{rng.choice(BASES)}.onnx"
    if rng.random() < 0.3:
        return mutated_bytes(path.read_bytes(), rng)
    model = onnx.load(path)
    for _ in range(rng.choice((1, 1, 1, 2, 2, 4))):
        with contextlib.suppress(ValueError, TypeError, IndexError, AttributeError):  # a change that protobuf does not take
            rng.choice(CHANGES)(model, rng)
    return model.SerializeToString()


def _node(model, rng):
    return rng.choice(model.graph.node)


def change_operator(model, rng):
    """Let a node be of the type of another one, or of one that does not exist."""
    kinds = sorted({node.op_type for node in model.graph.node})
    _node(model, rng).op_type = rng.choice(
        [*kinds, *kinds, "Frobnicate", "Loop", "If", "Scan", "Reshape", "Div", "Gather", "Conv"]
    )


def change_input(model, rng):
    """Let a node read another tensor, one more or one less."""
    node, other = _node(model, rng), _node(model, rng)
    names = [*other.output, *other.input, *(tensor.name for tensor in model.graph.initializer), *TEXTS[:4]]
    place = rng.randrange(len(node.input) + 1)
    if place == len(node.input):
        node.input.append(rng.choice(names))
    elif rng.random() < 0.3:
        del node.input[place]
    else:
        node.input[place] = rng.choice(names)


def change_output(model, rng):
    """Let a node make another tensor."""
    node = _node(model, rng)
    node.output[rng.randrange(len(node.output))] = rng.choice([*_node(model, rng).output, *TEXTS])


def change_node_list(model, rng):
    """Remove, repeat or move a node."""
    nodes = list(model.graph.node)
    place = rng.randrange(len(nodes))
    match rng.randrange(3):
        case 0:
            del nodes[place]
        case 1:
            nodes.insert(rng.randrange(len(nodes)), nodes[place])
        case 2:
            nodes.insert(rng.randrange(len(nodes)), nodes.pop(place))
    copies = [type(node).FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(copies)


def change_attribute(model, rng):
    """Give an attribute another value or type, or remove it."""
    node = rng.choice([node for node in model.graph.node if node.attribute])
    attribute = rng.choice(node.attribute)
    match rng.randrange(6):
        case 0:
            node.attribute.remove(attribute)
        case 1:
            attribute.i = rng.choice(NUMBERS)
        case 2:
            attribute.ints[rng.randrange(len(attribute.ints))] = rng.choice(NUMBERS)
        case 3:
            attribute.ints.append(rng.choice(NUMBERS))
        case 4:
            attribute.f = rng.choice((float("nan"), float("inf"), -1e38, 0.0))
        case 5:
            attribute.type = rng.randrange(15)


def change_constant(model, rng):
    """Give a constant other dimensions, another type, other or fewer values, or remove it."""
    import numpy as np
    from onnx import numpy_helper

    place = rng.randrange(len(model.graph.initializer))
    tensor = model.graph.initializer[place]
    match rng.randrange(7):
        case 0:
            tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice(NUMBERS)
        case 1:
            tensor.dims.append(rng.choice(NUMBERS[:4]))
        case 2:
            tensor.data_type = rng.randrange(24)
        case 3:
            tensor.raw_data = tensor.raw_data[: rng.randrange(len(tensor.raw_data) + 1)]
        case 4:
            del model.graph.initializer[place]
        case 5:
            values = numpy_helper.to_array(tensor).copy()
            bad = rng.choice((np.nan, np.inf, -1, 0, 1e30)) if values.dtype.kind == "f" else rng.choice(NUMBERS[:7])
            values.reshape(-1)[rng.randrange(max(values.size, 1)) :: rng.choice((1, 7))] = np.asarray(bad).astype(values.dtype)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
        case 6:
            tensor.name = rng.choice([*TEXTS, model.graph.initializer[0].name])


def change_value(model, rng):
    """Change what the graph says of an input or an output."""
    value = rng.choice([*model.graph.input, *model.graph.output, *model.graph.value_info])
    kind = value.type.tensor_type
    match rng.randrange(5):
        case 0:
            kind.elem_type = rng.randrange(24)
        case 1:
            kind.shape.dim[rng.randrange(len(kind.shape.dim))].dim_value = rng.choice(NUMBERS)
        case 2:
            kind.shape.dim.add().dim_param = rng.choice(TEXTS)
        case 3:
            value.name = rng.choice([*TEXTS, *_node(model, rng).output])
        case 4:
            value.ClearField("type")


def change_header(model, rng):
    """Change versions, names and metadata."""
    match rng.randrange(5):
        case 0:
            model.opset_import[0].version = rng.choice([*NUMBERS, 7, 11, 13, 21, 25])
        case 1:
            model.ir_version = rng.choice([*NUMBERS, 3, 10])
        case 2:
            entry = model.metadata_props.add()
            entry.key, entry.value = rng.choice(("sample_rate", "model_type", "", "vocab_size")), rng.choice(TEXTS)
        case 3:
            _node(model, rng).name = rng.choice(TEXTS)
        case 4:
            _node(model, rng).domain = rng.choice(("com.microsoft", "evil", "ai.onnx.ml"))


CHANGES = (
    change_operator, change_input, change_output, change_node_list, change_attribute, change_attribute, change_constant,
    change_constant, change_value, change_header,
)  # fmt: skip


def mutated_bytes(contents: bytes, rng: random.Random) -> bytes:
    """Return a file with some bytes changed, removed, repeated or cut off."""
    found = bytearray(contents)
    for _ in range(rng.choice((1, 2, 8))):
        near_the_front = rng.random() < 0.5
        place = rng.randrange(min(len(found), 400) if near_the_front else len(found)) if found else 0
        match rng.randrange(6):
            case 0 | 1:
                found[place : place + 1] = bytes([rng.randrange(256)])
            case 2:
                del found[place : place + rng.choice((1, 2, 16, 400))]
            case 3:
                found[place:place] = found[place : place + rng.choice((1, 16, 400))]
            case 4:
                found[place : place + 4] = rng.choice((b"\xff\xff\xff\x7f", b"\x00" * 4, b"\x80" * 4))
            case 5 if rng.random() < 0.3:
                del found[place:]
    return bytes(found)


def run_model(seed: int, folder: Path) -> None:
    """Load, inspect by its operators and quantize a mutated model, as a run does."""
    rng = random.Random(f"how {seed}")
    (folder / "model.onnx").write_bytes(mutated_model(seed))
    os.chdir(folder)
    stages = "[load,quantize]" if rng.random() < 0.95 else "[load,quantize,evaluate]"
    run_settings(
        ["model=onnx", "model.path=model.onnx", f"mode={rng.choice(MODES)}", f"stages={stages}", *LIMITS,
         "evaluation.samples=2", "evaluation.node_samples=0"],
        folder,
    )  # fmt: skip


# Settings


def mutated_settings(seed: int) -> list[str]:
    """Return a command line of settings that exist, with values that may be anything."""
    rng = random.Random(seed)
    model, mode = rng.choice(("onnx", "vocoder", "asr", "matcha")), rng.choice((*MODES, "auto"))
    given = [f"model={model}", f"mode={mode}"]
    names = [*setting_names(model, mode), "graph_modes.encoder", "typo", "model._target_", "mode.kind"]
    numbers = [str(number) for number in NUMBERS]
    values = [
        *numbers, "1.5", "nan", "inf", "1e999", "true", "false", "null", "[]", "{}", "[1,2]", "[a,null]",
        "{a: 1}", "'${oc.env:HOME}'",

        "${seed}", "${model.name}", "x", "''", "'<b>'", "名", "minmax", "int8", "[Conv]", "['*']", "[load]", "a b", "'a=b'",
        "\\",
        "[",
        "data/models/asr/model.onnx", "/dev/null", "/", "." * 300,
    ]  # fmt: skip
    for _ in range(rng.choice((1, 1, 2, 4))):
        key = rng.choice(names)
        if rng.random() < 0.1:
            key = mutated_bytes(key.encode(), rng).decode("utf-8", "replace")
        given.append(f"{rng.choice(('', '', '', '+', '++', '~'))}{key}={rng.choice(values)}")
    return given


@functools.cache
def setting_names(model: str, mode: str) -> list[str]:
    """Return the full names of all settings."""
    from omegaconf import OmegaConf

    names = []

    def walk(values: dict, prefix: str) -> None:
        for key, value in values.items():
            names.append(f"{prefix}{key}")
            if isinstance(value, dict):
                walk(value, f"{prefix}{key}.")

    walk(OmegaConf.to_container(composed([f"model={model}", f"mode={mode}"]), resolve=False), "")
    return names


def run_config(seed: int, folder: Path) -> None:
    """Compose mutated settings and run the load stage; or read a mutated config.yaml as `rerun` does."""
    rng = random.Random(f"how {seed}")
    if rng.random() < 0.25:
        from pipeline.config.compose import read_run_config

        text = composed_text()
        (folder / "config.yaml").write_bytes(mutated_bytes(text.encode(), rng))
        read_run_config(folder / "config.yaml")
        return
    run_settings([*mutated_settings(seed), "stages=[load]"], folder)


def composed_text() -> str:
    """Return the config.yaml of a run."""
    from pipeline.config.compose import save_config, to_plain

    return save_config(to_plain(composed(["model=vocoder", "mode=static"])))


def composed(overrides: list[str]):
    """Return what Hydra makes of settings."""
    return _composed(tuple(overrides)).copy()


@functools.lru_cache(maxsize=50)
def _composed(overrides: tuple[str, ...]):
    from hydra import compose

    from pipeline.command_line.override_text import protected

    return compose("config", [protected(override) for override in overrides])


def run_settings(overrides: list[str], folder: Path) -> None:
    """Run settings as the command does, without the parts that print."""
    from pipeline.config.compose import save_config, to_plain, to_run_config
    from pipeline.config.composition_error import composition_error
    from pipeline.config.readers import unread
    from pipeline.data.implied_kind import with_implied_kind
    from pipeline.errors import ConfigError
    from pipeline.paths import with_portable_paths
    from pipeline.record.run_directory import RunDirectory
    from pipeline.runner import run_stages

    try:
        settings = composed(overrides)
    except Exception as error:
        message = composition_error(error)
        if message is None:
            raise
        raise ConfigError(message) from error
    config, plain = with_implied_kind(to_run_config(settings), to_plain(settings), overrides)
    unread(config, overrides)
    directory = RunDirectory(folder / "run")
    directory.write_text("config.yaml", save_config(with_portable_paths(plain)))
    run_stages(config, directory)


# Recordings, manifests, arrays


def run_data(seed: int, folder: Path) -> None:
    """Read a mutated recording, manifest, set of arrays or report, as a run does."""
    import numpy as np

    from pipeline.config.choices import SampleRateMismatch
    from pipeline.data.arrays import read_arrays, read_labels
    from pipeline.data.audio_files import read_audio
    from pipeline.data.manifest import manifest_lines
    from pipeline.report.report_file import read_report

    rng = random.Random(seed)
    match rng.randrange(5):
        case 0 | 1:
            import soundfile

            clip = REPO / "data" / "clips" / "evaluation" / "e000.flac"
            if rng.random() < 0.5:
                audio, rate = soundfile.read(clip, dtype="int16")
                suffix = rng.choice(("wav", "flac", "ogg", "aiff"))
                soundfile.write(folder / f"a.{suffix}", audio[: rng.choice((100, 8000))], rate)
                clip = folder / f"a.{suffix}"
            path = folder / f"mutated{clip.suffix}"
            path.write_bytes(mutated_bytes(clip.read_bytes(), rng))
            read_audio(path, 16_000, SampleRateMismatch.resample, [])
        case 2:
            whole = (REPO / "data" / "clips" / "evaluation" / "manifest.jsonl").read_bytes()
            (folder / "m.jsonl").write_bytes(mutated_bytes(whole[:2000], rng))
            list(manifest_lines(folder / "m.jsonl", "evaluation.path"))
        case 3:
            save = rng.choice((np.savez, np.savez_compressed))
            save(folder / "a.npz", **{f"{n}/x": np.ones((2, 30), np.float32) for n in range(3)})
            (folder / "m.npz").write_bytes(mutated_bytes((folder / "a.npz").read_bytes(), rng))
            read_arrays(folder / "m.npz", "calibration.path", 5)
            np.save(folder / "a.npy", np.arange(30))
            (folder / "m.npy").write_bytes(mutated_bytes((folder / "a.npy").read_bytes(), rng))
            read_labels(folder / "m.npy")
        case 4:
            report = {
                "schema": 2,
                "status": "done",
                "model": "m",
                "mode": "static",
                "stages": [{"name": "load", "status": "done"}],
            }
            (folder / "report.json").write_bytes(mutated_bytes(json.dumps(report).encode(), rng))
            read_report(folder, "rerun")


# The worker


RUNS = {"models": run_model, "configs": run_config, "data": run_data}


def work(kind: str, first: int, count: int, place: Path) -> None:
    """Run seeds, one after the other, and print one line for each."""
    sys.path.insert(0, str(REPO))
    import pipeline.runner
    from pipeline.errors import PipelineError
    from pipeline.graph.rehearsal import rehearsals
    from pipeline.limits import LimitsConfig, holding

    register_settings()
    pipeline.runner.environment = functools.cache(pipeline.runner.environment)  # it asks git
    real, sys.stdout = sys.stdout, sys.stderr
    with holding(LimitsConfig(opening_seconds=20, memory_mb=1500)), rehearsals() as others:
        # one process for all seeds: a run of its own for each would spend its time on starting them
        pipeline.runner.rehearsals = lambda: contextlib.nullcontext(others)
        for seed in range(first, first + count):
            folder = place / f"{kind}-{seed}"
            (folder / "run").mkdir(parents=True)
            told = {"seed": seed}
            try:
                RUNS[kind](seed, folder)
                told["end"] = "fine"
            except PipelineError as error:
                told |= {"end": "refused", "error": type(error).__name__, "text": str(error)[:300]}
            except BaseException as error:
                last = next(
                    (f for f in reversed(traceback.extract_tb(error.__traceback__)) if "/pipeline/" in f.filename),
                    traceback.extract_tb(error.__traceback__)[-1],
                )
                told |= {"end": "traceback", "text": f"{type(error).__name__}: {str(error)[:200]}"}
                told["where"] = f"{Path(last.filename).name}:{last.lineno}"
                if count == 1:
                    traceback.print_exc()
            status = folder / "run" / "report.json"
            if status.is_file():
                told["status"] = json.loads(status.read_text(encoding="utf-8"))["status"]
            os.chdir(place / "here")
            shutil.rmtree(folder)
            print(json.dumps(told), file=real, flush=True)
    os._exit(0)


def register_settings() -> None:
    """Let Hydra know the settings, as the command does."""
    import logging

    from hydra import initialize_config_dir

    from pipeline.hydra_hooks import register
    from pipeline.paths import config_directory

    logging.disable(logging.CRITICAL)
    register()
    initialize_config_dir(str(config_directory()), version_base="1.3")


# What watches it


def ends(kind: str, first: int, count: int, seconds: float, place: Path) -> Iterator[dict]:
    """Yield what came of each seed; a worker that ends or hangs is started again behind the seed."""
    seed = first
    while seed < first + count:
        worker = subprocess.Popen(
            [sys.executable, __file__, "--worker", kind, str(seed), str(first + count - seed), str(place)],
            stdout=subprocess.PIPE, stderr=None if count == 1 else subprocess.DEVNULL, cwd=place / "here",
            env=os.environ | {"TMPDIR": str(place / "tmp"), "XDG_CACHE_HOME": str(place / "cache"), "PYTHONPATH": str(REPO)},
        )  # fmt: skip
        until = time.monotonic() + seconds + 60  # a worker has to start
        with worker:
            while seed < first + count:
                ready, _, _ = select.select([worker.stdout], [], [], max(until - time.monotonic(), 0))
                line = worker.stdout.readline() if ready else b""
                if not line:
                    break
                yield json.loads(line)
                seed, until = seed + 1, time.monotonic() + seconds
            else:
                continue
            hung = not ready
            worker.kill()
            status = worker.wait()
        yield {"seed": seed, "end": "hang" if hung else "crash", "text": f"exit status {status}"}
        shutil.rmtree(place / f"{kind}-{seed}", ignore_errors=True)
        seed += 1


def listing(place: Path) -> set[str]:
    """Return what lies in a folder, without the caches of libraries."""
    return {str(path.relative_to(place)) for path in place.rglob("*") if "cache" not in path.relative_to(place).parts[:1]}


def main() -> int:
    """Run what is asked for; return 1 where anything came of a seed that must not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for kind in KINDS:
        parser.add_argument(f"--{kind}", type=int, default=0, help="how many seeds")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--seconds", type=float, default=120.0, help="that one seed may take")
    asked = parser.parse_args()
    bad = 0
    for kind in KINDS:
        count = getattr(asked, kind)
        if not count:
            continue
        with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
            place = Path(name)
            for folder in ("here", "tmp", "cache"):
                (place / folder).mkdir()
            counts, wrong = Counter(), []
            start = time.monotonic()
            for told in ends(kind, asked.first, count, asked.seconds, place):
                counts[told["end"]] += 1
                if told["end"] == "refused" and told.get("status") not in (None, "failed"):
                    wrong.append({**told, "end": f"refused, but the report says {told['status']}"})
                if told["end"] not in ("fine", "refused"):
                    wrong.append(told)
                    print(f"{kind} {told}", flush=True)
            left = listing(place) - {"here", "tmp"}
        bad += len(wrong) + len(left)
        print(
            f"{kind}: {count} in {time.monotonic() - start:.0f} s: {dict(counts)}; left outside: {sorted(left)[:10]}",
            flush=True,
        )
        for told in wrong:
            print(f"  {told}", flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        work(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), Path(sys.argv[5]))
    sys.exit(main())
