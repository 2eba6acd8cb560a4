"""When the collector of reference cycles works: while this program is imported there is nothing to collect, only to look at.

That is a twentieth of the CPU time of a short run.
"""

import functools
import gc

COLLECTED_AFTER = 10_000  # objects; Python's own 700 are reached all the time by a program that makes so many


def keep_garbage() -> None:
    """Collect nothing until `collect_garbage` is called."""
    gc.disable()


@functools.cache
def collect_garbage() -> None:
    """Let the collector work, once a process; what has been imported stays to the end, and is not looked at again."""
    gc.freeze()
    gc.set_threshold(COLLECTED_AFTER)
    gc.enable()
