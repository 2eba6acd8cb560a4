"""Python's collector of cycles runs seldom while a command starts: what is imported and composed then stays to the end.

By default it runs after every 700 new objects, of which libraries and settings make a million: a fifteenth of what a command
costs before it does something.
"""

import functools
import gc

SELDOM = 50_000  # objects

_usual: list[tuple[int, int, int]] = []


def collect_seldom() -> None:
    """Let the collector of this process run seldom, until `collect_as_usual`."""
    if not _usual:
        _usual.append(gc.get_threshold())
        gc.set_threshold(SELDOM)


@functools.cache
def collect_as_usual() -> None:
    """Let it run as before, over what is made from now on; of many calls, the first counts."""
    gc.freeze()
    if _usual:
        gc.set_threshold(*_usual.pop())
