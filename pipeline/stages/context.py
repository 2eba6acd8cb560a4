"""What the stages of one run share: its settings, its data, and what each stage has given so far."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

from pipeline.config.mode_settings import AutoConfig, DynamicConfig, StaticConfig
from pipeline.config.readers import times_choices
from pipeline.config.settings import RunConfig
from pipeline.data.calibration_set import CalibrationSet
from pipeline.data.evaluation_set import FEW_SAMPLES, EvaluationSet
from pipeline.measure.benchmark_result import GraphBenchmark
from pipeline.measure.device_address import KEY
from pipeline.measure.other_runtime import OtherRuntime, find_runtime
from pipeline.measure.remote_host import Device, connected
from pipeline.models.loaded_model import LoadedModel
from pipeline.quantize.target import made_for_another, target_of
from pipeline.record.diagnosis import Diagnosis
from pipeline.record.packaged import Package
from pipeline.record.progress_bars import ProgressBars
from pipeline.record.results import Inspection
from pipeline.record.run_directory import RunDirectory
from pipeline.record.run_log import RunLog
from pipeline.stages.quantized import Quantized

if TYPE_CHECKING:
    from pipeline.evaluate.evaluation import Evaluation
    from pipeline.measure.timing_place import Place

PROBING = frozenset({"load", "inspect"})  # stages that look at one sample, of median size
PROBED_SAMPLES = 2 * FEW_SAMPLES  # enough to tell which size that is, and for both parts


@dataclass
class RunContext:
    """One run so far.

    Attributes:
        config: the settings; a downloaded model replaces their model by where it is in the cache.
        directory: where the run writes to.
        run_log: what it has read, skipped, noted and warned of.
        progress: how far it has come.
        model: what `load` has given.
        inspection: what `inspect` has given, by graph.
        diagnosis: what `doctor` has given.
        quantized: what `quantize` has given.
        benchmarks: what `benchmark` has given, by graph.
        evaluation: what `evaluate` has given.
        package: what `package` has given.
        split_before: which samples were in which part before a run ended early that goes on.
    """

    config: RunConfig
    directory: RunDirectory
    run_log: RunLog = field(default_factory=RunLog)
    progress: ProgressBars = field(default_factory=ProgressBars)
    model: LoadedModel | None = None
    inspection: dict[str, Inspection] | None = None
    diagnosis: Diagnosis | None = None
    quantized: Quantized | None = None
    benchmarks: dict[str, GraphBenchmark] | None = None
    evaluation: "Evaluation | None" = None
    package: Package | None = None
    split_before: dict[str, list[str]] | None = None

    @property
    def loaded(self) -> LoadedModel:
        """The model that `load` has given."""
        assert self.model is not None
        return self.model

    @property
    def result(self) -> Quantized:
        """What `quantize` has given."""
        assert self.quantized is not None
        return self.quantized

    @property
    def split(self) -> dict[str, list[str]] | None:
        """Which samples are in which part of the evaluation set; None before it was read."""
        return (None if self.model is None else self.evaluation_set.ids) or self.split_before

    @cached_property
    def runtime(self) -> OtherRuntime:
        """The ONNX Runtime that speed is measured in; of a device, what it has: `connected_runtime` opens the connection."""
        if self.config.benchmark.host is not None:
            with self.connected_runtime() as runtime:
                assert runtime.device is not None
                self._warn_of(runtime.device)
                return replace(runtime, remote=None)
        return find_runtime(self.config.benchmark.runtime)

    def _warn_of(self, device: Device) -> None:
        """Say what a device makes of figures that are measured on it."""
        if device.emulated:
            self.run_log.warn(f"{KEY}: {device.words}.")
        modes = (self.config.mode, *self.config.graph_modes.values())
        targets = {target_of(mode.target) for mode in modes if isinstance(mode, DynamicConfig | StaticConfig | AutoConfig)}
        for target in sorted(targets, key=lambda one: one.name):
            if problem := made_for_another(target, device.machine):
                self.run_log.warn(f"{KEY}: {problem}")

    @contextlib.contextmanager
    def connected_runtime(self) -> Iterator[OtherRuntime]:
        """Give the ONNX Runtime that speed is measured in, with an open connection where it is a device's."""
        settings = self.config.benchmark
        if settings.host is None:
            yield self.runtime
            return
        with connected(settings.host, settings.host_python, settings.ssh_config) as remote:
            yield OtherRuntime(remote.device.onnxruntime, device=remote.device, remote=remote)

    @contextlib.contextmanager
    def timing_place(self) -> Iterator["Place"]:
        """Give where a choice among graphs is timed: a device is connected where a mode of the run has such a choice."""
        from pipeline.measure.device_place import DevicePlace
        from pipeline.measure.timing_place import HERE

        if self.config.benchmark.host is None or not times_choices(self.config):
            yield HERE
            return
        with self.connected_runtime() as runtime:
            assert runtime.remote is not None
            yield DevicePlace(runtime.remote)

    @cached_property
    def calibration_set(self) -> CalibrationSet:
        """What graphs are calibrated on."""
        return CalibrationSet(self.loaded, self.config.calibration, self.config.seed, self.run_log)

    @cached_property
    def evaluation_set(self) -> EvaluationSet:
        """What choices are made on, and what is reported; the first samples of it where nothing is quantized or scored."""
        config = self.config.evaluation
        if PROBING.issuperset(self.config.stages):
            config = replace(config, samples=min(config.samples, PROBED_SAMPLES))
        return EvaluationSet(self.loaded, config, self.config.seed, self.run_log)
