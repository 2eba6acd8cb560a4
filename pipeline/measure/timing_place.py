"""Where a choice among graphs is timed: in this process, or on a device (`device_place.py`).

What asks how fast graphs are takes a `Place`, and does not know which it is.
"""

import logging
import time
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

import numpy as np
import onnx

from pipeline.graph.large_models import byte_size
from pipeline.graph.rehearsal import EndedError
from pipeline.graph.session import infer, open_session, opens_quickly, rehearse_model
from pipeline.measure.child_process import machine_lock
from pipeline.measure.kernel_times import Times, kernel_times
from pipeline.measure.session_rounds import blocks_of, timed_round
from pipeline.sample import Sample

log = logging.getLogger(__name__)

SERIALIZED_BYTES = 1 << 30  # of all graphs that are timed together


class Bench(Protocol):
    """Some graphs that are to be timed against each other, on the same samples and with as many threads."""

    def survives(self, number: int) -> bool:
        """Return whether a graph runs on the first sample, and does not end the process that runs it."""

    def round(
        self, numbers: Sequence[int], *, together: bool, order: Sequence[int], rng: np.random.Generator, at_least: int,
        seconds: float, quick: bool = False,
    ) -> Iterable[list[float]]:  # fmt: skip
        """Yield the milliseconds that each of some graphs took for one sample, for one sample after the other.

        Args:
            numbers: which graphs.
            together: whether it ends after all samples only.
            order: in which their sessions are opened: positions in `numbers`.
            rng: draws which graph runs first.
            at_least: see `pipeline.measure.paired_timing.take_turns`.
            seconds: of wall time, likewise.
            quick: whether sessions may be opened quickly, at the price of being a little faster than a client's.
        """


class Place(Protocol):
    """Where graphs are timed."""

    @property
    def words(self) -> str | None:
        """What it is, with its ONNX Runtime, for reports; None: this machine."""

    def alone(self) -> AbstractContextManager[None]:
        """Keep other benchmarks out."""

    def bench(self, models: Sequence[onnx.ModelProto], samples: Sequence[Sample], threads: int) -> Bench:
        """Return what times these graphs; one that was given before is given up."""

    def inference_s(self, model: onnx.ModelProto, sample: Sample, threads: int) -> float:
        """Return about how many seconds one inference takes."""

    def kernel_times(self, model: onnx.ModelProto, sample: Sample, threads: int) -> Times:
        """Return the time that the kernels of a graph take in one inference.

        Raises:
            EndedError: the process that ran it has ended.
        """


class _BenchHere:
    def __init__(self, models: Sequence[onnx.ModelProto], samples: Sequence[Sample], threads: int) -> None:
        """Take the graphs; small ones are serialized once, and not each time that one is opened."""
        small = sum(map(byte_size, models)) <= SERIALIZED_BYTES
        self._models = [model.SerializeToString() for model in models] if small else list(models)
        self._samples, self._threads = samples, threads

    def survives(self, number: int) -> bool:
        try:
            rehearse_model(self._models[number], self._threads, sample=self._samples[0], again=True)
        except EndedError as error:
            log.info("a graph that would have been timed: %s", error.how)
            return False
        return True

    def round(
        self, numbers: Sequence[int], *, together: bool, order: Sequence[int], rng: np.random.Generator, at_least: int,
        seconds: float, quick: bool = False,
    ) -> Iterable[list[float]]:  # fmt: skip
        if quick:  # all of them or none, lest one be faster than the others for that alone
            for number in numbers:
                rehearse_model(self._models[number], self._threads, sample=self._samples[0], again=True)
            quick = all(opens_quickly(self._models[number], self._threads) for number in numbers)
        return timed_round(
            [self._models[number] for number in numbers], self._samples, blocks_of(len(self._samples), together=together),
            threads=self._threads, order=order, rng=rng, at_least=at_least, seconds=seconds,
            watch=time.perf_counter, quick=quick,  # on a busy machine, what is asked for is wall time too
        )  # fmt: skip


class _Here:
    words = None

    def alone(self) -> AbstractContextManager[None]:
        return machine_lock()

    def bench(self, models: Sequence[onnx.ModelProto], samples: Sequence[Sample], threads: int) -> Bench:
        return _BenchHere(models, samples, threads)

    def inference_s(self, model: onnx.ModelProto, sample: Sample, threads: int) -> float:
        session = open_session(model, threads)
        infer(session, sample)
        start = time.perf_counter()
        infer(session, sample)
        return time.perf_counter() - start

    def kernel_times(self, model: onnx.ModelProto, sample: Sample, threads: int) -> Times:
        return kernel_times(model, sample, threads)


HERE: Place = _Here()
