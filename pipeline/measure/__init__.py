"""Measurement of speed and memory.

benchmark_graph.py    is the quantized model faster than the original, by how much, within which interval?
benchmark_child.py    the child process that runs the models; child_process.py: starts it, one at a time on a machine
benchmark_result.py   what was measured, as frozen values
paired_timing.py      the timer: models run in turn, one sample after the other; speed-up, interval and verdict
session_rounds.py     the same in this process: sessions opened again for each round
rewrite_gain.py       is one graph faster than another, in this process
relative_speed.py     several graphs beside their original, in this process
ort_trace.py          what ONNX Runtime's profiler writes: inferences and their kernels
ort_profile.py        time and shapes per node, from ONNX Runtime's profiler
chrome_trace.py       where the time of both goes, as a Chrome trace
"""
