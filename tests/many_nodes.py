"""What a run makes of a model of very many operators: how soon it is refused, and what that takes.

    python tests/many_nodes.py --nodes 1000000 --kind chain

Writes a model into a temporary folder, lets the command load it, and prints the exit status, the seconds, the peak of memory
of the command and of its other process (Linux), and the error. Each kind is another way to have many operators:

- `chain`: named operators one behind the other, as an unrolled loop has them;
- `bodies`: in the branches of an If, and in those of Ifs in them;
- `empty`: operators of no byte but those that say that one begins: the most that a file can hold;
- `functions`: few, but functions that call functions, each of them twice.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import onnx
from onnx import TensorProto, helper

REPO = Path(__file__).resolve().parent.parent


def chain(count: int, prefix: str = "t") -> list[onnx.NodeProto]:
    """Return operators one behind the other, from x."""
    names = ["x", *(f"{prefix}{number}" for number in range(count))]
    return [helper.make_node("Neg", [names[k]], [names[k + 1]], name=f"n{prefix}{k}") for k in range(count)]


def model_of(nodes: list[onnx.NodeProto], functions: tuple[onnx.FunctionProto, ...] = ()) -> bytes:
    """Return a model of x -> y."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in ("x", "y")]
    graph = helper.make_graph([*nodes, helper.make_node("Neg", [nodes[-1].output[0]], ["y"])], "g", ends[:1], ends[1:])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8, functions=functions).SerializeToString()


def with_chain(count: int) -> bytes:
    """Return a model of so many operators."""
    return model_of(chain(count - 1))


def with_bodies(count: int, depth: int = 5) -> bytes:
    """Return a model whose operators lie in bodies in bodies."""

    def branch(level: int) -> onnx.GraphProto:
        nodes = chain(count // (2 * depth), f"b{level}_")
        if level:
            nodes.append(choice(level - 1))
        output = helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, ["n"])
        return helper.make_graph(nodes, f"b{level}", [], [output])

    def choice(level: int) -> onnx.NodeProto:
        inner = branch(level)
        return helper.make_node(
            "If", ["k"], [f"c{level}"], name=f"c{level}", then_branch=inner, else_branch=inner if not level else branch(0)
        )

    constant = helper.make_node("Constant", [], ["k"], value=helper.make_tensor("v", TensorProto.BOOL, [], [True]))
    return model_of([constant, choice(depth - 1)])


def with_empty(count: int) -> bytes:
    """Return a model of operators that say nothing; protobuf joins graphs that are there twice."""
    nodes = b"\x0a\x00" * count
    size, length = len(nodes), b""
    while size > 127:
        length += bytes([size & 127 | 128])
        size >>= 7
    return model_of(chain(1)) + b"\x3a" + length + bytes([size]) + nodes


def with_functions(count: int) -> bytes:
    """Return a model of few operators, which are many where calls of functions are what they stand for."""
    opset, functions, level = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)], [], 0
    while 2**level < count:
        called, domain = (f"f{level - 1}", "own") if level else ("Neg", "")
        nodes = [helper.make_node(called, ["a"], ["b"], domain=domain), helper.make_node(called, ["b"], ["c"], domain=domain)]
        functions.append(helper.make_function("own", f"f{level}", ["a"], ["c"], nodes, opset))
        level += 1
    return model_of([helper.make_node(f"f{level - 1}", ["x"], ["t"], domain="own")], tuple(functions))


KINDS: dict[str, Callable[[int], bytes]] = {
    "chain": with_chain, "bodies": with_bodies, "empty": with_empty, "functions": with_functions,
}  # fmt: skip


def processes_of(pid: int) -> Iterator[int]:
    """Yield a process and its children."""
    yield pid
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split():
        yield from processes_of(int(child))


def peaks(process: subprocess.Popen) -> dict[int, int]:
    """Wait for the end of a process; return the most memory that it and each of its children had, in megabytes."""
    found: dict[int, int] = {}
    while process.poll() is None:
        try:
            for pid in processes_of(process.pid):
                for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
                    if line.startswith("VmHWM:"):
                        found[pid] = int(line.split()[1]) // 1000
        except OSError:
            pass
        time.sleep(0.02)
    return found


def main() -> None:
    """Write a model, run the command on it, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=1_000_000)
    parser.add_argument("--kind", choices=KINDS, default="chain")
    parser.add_argument("settings", nargs="*", help="of the run, such as limits.nodes=2000000")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(KINDS[asked.kind](asked.nodes))
        print(f"{asked.kind}: {asked.nodes} operators, {path.stat().st_size / 1e6:.1f} MB", flush=True)
        command = ["model=onnx", "model.path=model.onnx", "mode=dynamic", "stages=[load]", "hydra.run.dir=run", *asked.settings]
        start = time.monotonic()
        run = subprocess.Popen(
            [sys.executable, str(REPO / "run.py"), *command], cwd=folder, stderr=subprocess.PIPE, text=True,
            env=os.environ | {"PYTHONPATH": str(REPO)},
        )  # fmt: skip
        peak = peaks(run)
        seconds = time.monotonic() - start
        said = run.stderr.read() if run.stderr else ""
    most = {"command": peak.pop(run.pid), "other process": max(peak.values(), default=0)}
    print(f"exit status {run.returncode} after {seconds:.1f} s; MB at most: {most}\n{said[-600:]}")


if __name__ == "__main__":
    main()
