"""The time that a stage may take: when it is over, the stage ends where it is, as by a signal.

It is the process's own time: a wait for the benchmark of another process does not count.
"""

import ctypes
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from pipeline.errors import StageError
from pipeline.interruption import interruption_in
from pipeline.own_time import own_time

LEAST_SECONDS = 0.01  # that are worth another look at the clock
AGAIN_SECONDS = 1.0  # after which it is raised again, where a destructor or foreign code has swallowed it


class OutOfStageTimeError(BaseException):
    """The time is over; no handler of ordinary errors may take it for one."""


@contextmanager
def at_most(seconds: float | None, stage: str) -> Iterator[None]:
    """Enclose a stage. A call of native code, such as an inference, is let end first.

    Args:
        seconds: that it may take; None: as long as it needs.
        stage: its name.

    Raises:
        StageError: it took longer, and was ended.
    """
    if seconds is None:
        yield
        return
    over = threading.Event()
    is_main = threading.current_thread() is threading.main_thread()
    clock = _by_signal if is_main and hasattr(signal, "setitimer") else _by_thread
    try:
        with clock(seconds, over):
            yield
    except BaseException as error:
        if not over.is_set() or interruption_in(error) is not None:
            raise
        raise StageError(
            f"{stage}: took longer than limits.stage_seconds={seconds:g}, and was ended. Raise it, or give fewer or shorter "
            "samples, or a smaller model."
        ) from None


@contextmanager
def _by_signal(seconds: float, over: threading.Event) -> Iterator[None]:
    end = own_time() + seconds

    def ring(number: int, frame: FrameType | None) -> None:
        del number, frame
        if (left := end - own_time()) > LEAST_SECONDS:
            signal.setitimer(signal.ITIMER_REAL, left, AGAIN_SECONDS)
            return
        over.set()
        raise OutOfStageTimeError

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN_SECONDS)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGALRM) is ring:  # a signal that asks for the end has taken the timer over otherwise
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            signal.signal(signal.SIGALRM, before)


@contextmanager
def _by_thread(seconds: float, over: threading.Event) -> Iterator[None]:
    """Raise it in this thread from another one: signals come to the main thread only."""
    me, done = threading.get_ident(), threading.Event()

    end = own_time() + seconds

    def ring() -> None:
        while (left := end - own_time()) > LEAST_SECONDS:
            if done.wait(left):
                return
        if not done.is_set():
            over.set()
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(me), ctypes.py_object(OutOfStageTimeError))

    watch = threading.Thread(target=ring, name="time of a stage", daemon=True)
    watch.start()
    try:
        yield
    finally:
        done.set()
        watch.join()
