"""A copy of this process that does one thing on two pipes: what this process has imported, it need not import again.

A new interpreter spends a fifth of a second of a processor's time on numpy and ONNX Runtime. A copy has no threads but its own,
and locks that others hold at that moment are never released in it: only a process of one thread is copied.
"""

import contextlib
import gc
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import IO

THREADS = "/proc/self/task"
FIRST = 3  # file descriptors below are standard input, output and error
SIGNALS = {signal.SIGINT, signal.SIGTERM}


def can_be_copied() -> bool:
    """Return whether this process has one thread, those of native code included; Linux alone tells."""
    try:
        return len(list(Path(THREADS).iterdir())) == 1
    except OSError:
        return False


class ProcessCopy:
    """A copy of this process, as the parent sees it: what is used here of `subprocess.Popen`.

    Attributes:
        pid: of the copy.
        stdin: what is written here, the copy reads.
        stdout: what the copy writes, is read here.
    """

    def __init__(self, serve: Callable[[IO[bytes], IO[bytes]], None], printed: IO[bytes] | int) -> None:
        """Start a copy, which calls `serve` with its ends of the pipes and ends when that returns.

        Args:
            serve: the function. Ctrl-C and SIGTERM do not end the copy, which its parent does; other signals have their usual
                effect. It has no file of this process.
            printed: a file for what it prints, or `subprocess.DEVNULL`.
        """
        requests, to_copy = os.pipe()
        from_copy, answers = os.pipe()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            self.pid = os.fork()
            if not self.pid:
                _live(serve, requests, answers, printed if isinstance(printed, int) else printed.fileno(), before)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(requests)
        os.close(answers)
        self.stdin: IO[bytes] = os.fdopen(to_copy, "wb")
        self.stdout: IO[bytes] = os.fdopen(from_copy, "rb")
        self._status: int | None = None

    def kill(self) -> None:
        """End the copy."""
        if self._status is None:
            os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> int:
        """Wait for the end of the copy; return its exit status, negative: the signal that ended it."""
        if self._status is None:
            _, status = os.waitpid(self.pid, 0)
            self._status = os.waitstatus_to_exitcode(status)
        return self._status


def _live(
    serve: Callable[[IO[bytes], IO[bytes]], None], requests: int, answers: int, printed: int, mask: set[signal.Signals | int]
) -> None:
    """Be the copy, to its end; nothing of this process is unwound, written out or closed in it."""
    import fcntl  # not on Windows

    status = 1
    try:
        for number in signal.valid_signals():
            if callable(signal.getsignal(number)):
                signal.signal(number, signal.SIG_DFL)
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        logging.root.handlers.clear()  # their files are closed
        own = [fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, FIRST) for descriptor in (requests, answers)]
        nowhere = os.open(os.devnull, os.O_RDWR)
        for standard, descriptor in enumerate((nowhere, printed, printed)):
            os.dup2(nowhere if descriptor < 0 else descriptor, standard)
        last = FIRST
        for descriptor in sorted(own):
            os.closerange(last, descriptor)
            last = descriptor + 1
        os.closerange(last, os.sysconf("SC_OPEN_MAX"))
        sys.stdout = sys.stderr = os.fdopen(2, "w")
        gc.freeze()  # what is here now is not looked through, and so not copied
        serve(os.fdopen(own[0], "rb"), os.fdopen(own[1], "wb"))
        status = 0
    except BaseException:
        with contextlib.suppress(Exception):
            traceback.print_exc()
            sys.stderr.flush()
    finally:
        os._exit(status)
