"""The verdict on the speed of a graph, in the words of the terminal and of the page."""

from pipeline.measure.benchmark_result import GraphBenchmark

LEADS = {"slower": "Slower", "same": "No faster and no slower", "faster": "Faster"}
"""Verdict -> how the sentence begins; what disappoints comes first."""


def speed_verdict(measured: GraphBenchmark, *, loud: bool = False) -> str:
    """Return the verdict on one graph in words: slower than fp32 is said as plainly as faster."""
    lead = LEADS[measured.verdict]
    where = "" if measured.elsewhere is None else f", {measured.elsewhere}"
    return f"{lead.upper() if loud else lead} than fp32: {measured.speedup.median:.2f} times its speed{where}"
