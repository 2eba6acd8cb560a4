"""Print the ranges of some distributions as JSON: `python ranges_of_distributions.py [library that is not installed]`."""

import json
import sys


def main() -> None:
    """Count values, merge counts, and find the ranges of every method."""
    import numpy as np

    from pipeline.calibration.accumulator import TensorAccumulator
    from pipeline.calibration.bins import BinCounts
    from pipeline.calibration.range_selection import Entropy, MeanSquaredError, Percentile, tensor_ranges
    from pipeline.calibration.statistics import Measurement, Statistics
    from pipeline.sample import Sample

    rng = np.random.default_rng(0)
    normal = rng.standard_normal(60_000).astype(np.float32)
    samples = {
        "normal": [normal[:1000], 3 * normal[1000:]],  # the second has a larger exponent: counts move
        "heavy tails": [rng.standard_t(3, 30_000)],
        "after a relu": [np.maximum(normal, 0)],
        "negative": [-np.abs(normal)],
        "tiny": [1e-38 * normal],
        "a few values": [np.array([-1.5, 0.0, 0.25, 0.25, 3.0])],
        "zeros": [np.zeros(100)],
        "empty, then one": [np.empty(0), np.array([2.0])],
    }
    found = {}
    for name, arrays in samples.items():
        seen = TensorAccumulator({"t": arrays[0]}, histograms=True)
        for array in arrays:
            seen.add({"t": array.astype(np.float32)}, Sample("one", {}))
        [(_, measured)] = seen.measurements()
        merged = measured.bins.merge(BinCounts(measured.bins.exponent + 2))
        statistics = Statistics(
            ("one",) * len(arrays),
            {
                "t": measured,
                "merged": Measurement(measured.sample_low, measured.sample_high, measured.count, merged, None),
            },
        )
        for method in (Percentile(99.9), Entropy(), MeanSquaredError()):
            for levels, symmetric in ((256, False), (256, True), (16, False)):
                ranges = tensor_ranges(statistics, ["t", "merged"], method, levels=levels, symmetric=symmetric)
                for tensor, one in ranges.items():
                    found[f"{name}, {tensor}: {method}, {levels}, {symmetric}"] = [one.low, one.high]
    print(json.dumps(found))


if __name__ == "__main__":
    for library in sys.argv[1:]:
        sys.modules[library] = None  # importing it raises ImportError, and importlib finds none
    main()
