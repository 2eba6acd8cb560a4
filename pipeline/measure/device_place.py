"""Graphs timed on a device: sent over the open connection, and run by a child there that is kept from one job to the next.

Rounds are the same as in this process (`session_rounds.py`), and so is what is made of them.
"""

import contextlib
import logging
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from pipeline.errors import StageError
from pipeline.graph.large_models import is_large, save_with_external_data
from pipeline.graph.model_digest import digest_of
from pipeline.graph.rehearsal import EndedError
from pipeline.measure.child_process import run_child
from pipeline.measure.kernel_times import Times
from pipeline.measure.other_runtime import OtherRuntime
from pipeline.measure.remote_host import LostDeviceError, RemoteHost
from pipeline.measure.timing_place import Bench
from pipeline.sample import Sample

log = logging.getLogger(__name__)

LAST_SEED = 2**31


class DevicePlace:
    """A device as a place to time at.

    Args:
        remote: the open connection.
    """

    def __init__(self, remote: RemoteHost) -> None:
        self._remote = remote
        self._runtime = OtherRuntime(remote.device.onnxruntime, device=remote.device, remote=remote)
        self._there: dict[bytes, str] = {}  # digest of a graph -> its name on the device

    @property
    def words(self) -> str | None:
        """What it is, with its ONNX Runtime."""
        return f"{self._remote.device.words}; ONNX Runtime {self._remote.device.onnxruntime}"

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other benchmarks out on the device.

        Raises:
            LostDeviceError: the connection broke.
        """
        self._remote.alone(wanted=True)
        yield
        self._remote.alone(wanted=False)

    def bench(self, models: Sequence[onnx.ModelProto], samples: Sequence[Sample], threads: int) -> Bench:
        """Return what times these graphs; they are sent where the device has not got them, and others are removed there."""
        return _DeviceBench(self, self._sent(models), samples, threads)

    def inference_s(self, model: onnx.ModelProto, sample: Sample, threads: int) -> float:
        """Return about how many seconds one inference takes, on a graph that is run there for the first time.

        Raises:
            StageError: the device does not run it, or is lost.
        """
        rng = np.random.default_rng(0)
        turns = self.bench([model], [sample], threads).round([0], together=True, order=[0], rng=rng, at_least=1, seconds=0.0)
        return next(ms for [ms] in turns) / 1000.0

    def kernel_times(self, model: onnx.ModelProto, sample: Sample, threads: int) -> Times:
        """Return the time that the kernels of a graph take in one inference.

        Raises:
            EndedError: the device does not run it.
            LostDeviceError: the connection broke.
        """
        [name] = self._sent([model])
        what = f"The profile of a graph of {len(model.graph.node)} nodes on {self._remote.device.name}"
        try:
            return Times(**self.job("kernels", [sample], what, model=name, threads=threads))
        except LostDeviceError:
            raise
        except StageError as error:
            raise EndedError(str(error), what) from error

    def job(self, task: str, samples: Sequence[Sample], what: str, **settings: Any) -> dict[str, Any]:  # noqa: ANN401  JSON
        """Let the child on the device that is kept do a task of `pipeline.measure.benchmark_child`."""
        with tempfile.TemporaryDirectory(prefix="device-") as folder:
            return run_child(Path(folder), task, samples, what, runtime=self._runtime, kept=True, **settings)

    def _sent(self, models: Sequence[onnx.ModelProto]) -> list[str]:
        """Return the names of graphs on the device, which has these and no others then."""
        wanted = {digest_of(model): model for model in models}
        for digest in self._there.keys() - wanted:
            self._remote.remove(self._there.pop(digest))
        for digest, model in wanted.items():
            if digest not in self._there:
                self._there[digest] = self._send(model)
        return [self._there[digest_of(model)] for model in models]

    def _send(self, model: onnx.ModelProto) -> str:
        if not is_large(model):
            return self._remote.send_graph(model.SerializeToString())
        with tempfile.TemporaryDirectory(prefix="large-model-") as folder:
            return self._remote.send_file(save_with_external_data(model, Path(folder) / "model.onnx")[0])


class _DeviceBench:
    def __init__(self, place: DevicePlace, names: Sequence[str], samples: Sequence[Sample], threads: int) -> None:
        self._place, self._names, self._samples, self._threads = place, names, samples, threads

    def survives(self, number: int) -> bool:
        what = "A graph that would have been timed"
        try:
            self._place.job("open", self._samples[:1], what, model=self._names[number], threads=self._threads)
        except LostDeviceError:
            raise
        except StageError as error:
            log.info("%s", error)
            return False
        return True

    def round(
        self, numbers: Sequence[int], *, together: bool, order: Sequence[int], rng: np.random.Generator, at_least: int,
        seconds: float, quick: bool = False,
    ) -> Iterable[list[float]]:  # fmt: skip
        found: list[list[float]] = self._place.job(
            "round", self._samples, f"The timing of {len(numbers)} graphs on {self._place.words}",
            models=[self._names[number] for number in numbers], together=together, threads=self._threads,
            order=[int(position) for position in order], seed=int(rng.integers(LAST_SEED)), at_least=at_least, seconds=seconds,
        )["turns"]  # fmt: skip
        return found
