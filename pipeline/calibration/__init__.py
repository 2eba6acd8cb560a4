"""The range engine.

collect.py           run a graph over a calibration set once, and measure its tensors
segments.py          a graph in consecutive parts, so that little is in memory at a time
derived_tensors.py   tensors that follow exactly from another one, and so are not measured
infinite_tensors.py  tensors that hold NaN or infinity, and so have no range
accumulator.py       what has been seen of tensors; bins.py: counts in bins; numba_jit.py: compiled loops
statistics.py        what was seen, in one file; statistics_cache.py: found again by what it depends on
range_selection.py   from statistics to ranges: minmax, moving average, percentile, and
entropy.py, mse.py   the two that search; histogram.py: what they search in
"""
