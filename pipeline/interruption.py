"""Ctrl-C and SIGTERM: the run ends with what it has so far, in one line, with the exit status that shells expect.

The first signal raises `Interrupted` in the main thread: what catches it keeps what is worth keeping. A second one ends the
process at once. A signal that arrives before a run has begun ends the process at once too: there is nothing to keep, and an
exception in the midst of imports would be shown as a traceback.

It waits for the end of an import, and of the making of a log handler, that it comes into: torn apart, a module or a handler is
left half made, and what meets it later fails in ways of its own (`logging.shutdown`, at the end of the process, by a handler
without a stream).

Python calls handlers in the main thread, and only between two of its instructions: while that computes in native code, which
may be minutes, it hears nothing. A thread hears signals meanwhile: it ends an inference at the first one, the process at the
second one.

Only the command installs handlers. Where this package is imported by another program, KeyboardInterrupt comes as Python
raises it, and is treated the same.

This module is imported before all others, and imports little.
"""

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import socket

log = logging.getLogger(__name__)

SAME_SECONDS = 0.3  # within which a second signal is the same wish: make and timeout pass on what the terminal has sent too
SECOND = "; a second Ctrl-C ends it at once"
INSIST_SECONDS = 1.0  # after which an interruption that was lost (in a destructor, in foreign code) is raised again
SOON_SECONDS = 0.05  # after which it is tried again where something was being made
PATIENCE_SECONDS = 5.0  # after which it is raised there too
OF_IMPORTS = "<frozen importlib._bootstrap>"  # the file that frames of an import are of
OF_LOGGING = logging.__file__.removesuffix("__init__.py")


class Interrupted(KeyboardInterrupt):
    """A signal asks the process to end.

    Attributes:
        number: of the signal.
    """

    def __init__(self, number: int = signal.SIGINT) -> None:
        """Take the number of the signal."""
        super().__init__(number)
        self.number = number


@dataclass
class _State:
    """What is known of signals in this process.

    Attributes:
        installed: whether this process takes signals over.
        running: whether there is something to keep; before that, a signal ends the process at once.
        received: the first signal.
        at: when it came, on the clock of `time.monotonic`.
        noticed: whether it was caught where something is made of it.
        held: how many blocks are open that must not be torn apart.
        boundaries: how many stages are open.
        held_to_boundary: whether signals wait for the end of the stage.
        postponed: an interruption, or an error, that was caught, to be raised at the end of the stage.
        children: processes that must not outlive this one.
        work: what ends each piece of native work that is under way.
        wakes: what Python writes the number of each signal to, for the thread that hears them; None: there is no thread.
    """

    installed: bool = False
    running: bool = False
    received: int | None = None
    at: float = 0.0
    noticed: bool = False
    held: int = 0
    boundaries: int = 0
    held_to_boundary: bool = False
    postponed: Exception | KeyboardInterrupt | None = None
    children: set["subprocess.Popen[Any]"] = field(default_factory=set)
    work: list[Callable[[], None]] = field(default_factory=list)
    wakes: "socket.socket | None" = None


_state = _State()
_ending = threading.Lock()


def install() -> None:
    """Take over SIGINT and SIGTERM in this process; those that its parent lets it ignore stay ignored (nohup)."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _on_signal)
            _state.installed = True
    before = sys.unraisablehook

    def quiet(unraisable: "sys.UnraisableHookArgs") -> None:
        if not isinstance(unraisable.exc_value, Interrupted):  # raised in a destructor: it will be raised again
            before(unraisable)

    sys.unraisablehook = quiet


def begin() -> None:
    """From here on there is something to keep: a signal raises `Interrupted`."""
    _state.running = True
    if _state.installed and _state.wakes is None:
        _listen()


def status_of(error: KeyboardInterrupt) -> int:
    """Return the exit status of an interruption: 130 for SIGINT, 143 for SIGTERM."""
    return 128 + (error.number if isinstance(error, Interrupted) else signal.SIGINT)


def interruption_in(error: BaseException) -> KeyboardInterrupt | None:
    """Return the interruption that an exception is, or that a signal has made of it in foreign code; None: there is none.

    It counts as noticed from here on: it is not raised again.
    """
    if isinstance(error, KeyboardInterrupt):
        found: KeyboardInterrupt | None = error
    else:  # an extension module may have made an ImportError or a SystemError of it
        found = Interrupted(_state.received) if _state.received is not None else None
    if found is not None:
        _notice()
    return found


def postpone(error: Exception | KeyboardInterrupt) -> None:
    """Go on to the end of the stage, to finish what it has so far; the error is raised there, outside of one at once."""
    interrupted = isinstance(error, KeyboardInterrupt)
    if interrupted:
        _notice()
    if not _state.boundaries:
        raise error
    if _state.postponed is None:
        told = "what there is so far is being checked and written"
        log.info("%s: %s%s", *(("Interrupted", told, SECOND) if interrupted else (error, told, "")))
    _state.postponed = error


def is_postponed() -> bool:
    """Return whether a stage only finishes what it has."""
    return _state.postponed is not None


def hold() -> None:
    """Let signals wait for the end of the stage, whose result is about to become visible; outside of a stage, do nothing."""
    _state.held_to_boundary = _state.boundaries > 0


@contextlib.contextmanager
def boundary() -> Iterator[None]:
    """Enclose a stage: what was postponed in it, or held back, is raised at its end."""
    _state.boundaries += 1
    try:
        yield
    except BaseException:
        if (error := _let_go()) is not None:
            raise error from None
        raise
    if (error := _let_go()) is not None:
        raise error


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Enclose a few steps that a signal must not come between."""
    _state.held += 1
    try:
        yield
    finally:
        _state.held -= 1
    if _is_open():
        raise Interrupted(_state.received or signal.SIGINT)


def run_and_end_with_us(command: Sequence[str], **settings: Any) -> "subprocess.CompletedProcess[str]":  # noqa: ANN401
    """Run a program to its end, as `subprocess.run` with what it prints captured; it ends before this process does.

    Args:
        command: the program and its arguments.
        settings: as of `subprocess.Popen`.
    """
    with held():
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **settings)
    with process, ended_with_us(process):
        try:
            stdout, stderr = process.communicate()
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)


@contextlib.contextmanager
def ended_by_signals(end: Callable[[], None]) -> Iterator[None]:
    """Enclose work in native code that can be told to end: the first signal does so, unless it is to wait for what is held.

    Args:
        end: tells the work to end, from another thread; the work then raises an error of its own, in whose place `Interrupted`
            comes.
    """
    _state.work.append(end)
    try:
        yield
    finally:
        _state.work.remove(end)


@contextlib.contextmanager
def ended_with_us(process: "subprocess.Popen[Any]") -> Iterator[None]:
    """Enclose the work of a child: where a signal ends this process at once meanwhile, the child is ended first."""
    _state.children.add(process)
    try:
        yield
    finally:
        _state.children.discard(process)


def _on_signal(number: int, frame: FrameType | None) -> None:
    if not _state.running:
        _end("interrupted before a run began", number)
    if _state.received is not None:
        if time.monotonic() - _state.at < SAME_SECONDS:
            return
        _end("interrupted again: ended at once", number)
    _state.received, _state.at = number, time.monotonic()
    if hasattr(signal, "setitimer"):
        signal.signal(signal.SIGALRM, _insist)
    _raise_or_wait(frame)


def _listen() -> None:
    """Start the thread that hears signals while the main thread is in native code."""
    import socket

    receives, _state.wakes = socket.socketpair()
    _state.wakes.setblocking(False)
    signal.set_wakeup_fd(_state.wakes.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_hear, args=(receives,), name="signals", daemon=True).start()


def _hear(receives: "socket.socket") -> None:
    """Take the number of each signal as it comes."""
    first: float | None = None
    while True:
        try:
            numbers = receives.recv(64)
        except TimeoutError:
            receives.settimeout(None)
            if _state.received is None:  # the main thread has not heard of it
                log.info("Interrupted: ends when the computation that is under way is done; a second Ctrl-C ends it at once")
            continue
        for number in numbers:
            if number not in (signal.SIGINT, signal.SIGTERM):
                continue
            if first is None:
                first = time.monotonic()
                receives.settimeout(INSIST_SECONDS)
                if not (_state.held or _state.held_to_boundary or _state.noticed):
                    for end in tuple(_state.work):
                        end()
            elif time.monotonic() - first >= SAME_SECONDS:
                _end("interrupted again: ended at once", number)


def _insist(number: int, frame: FrameType | None) -> None:
    del number
    _raise_or_wait(frame)


def _raise_or_wait(frame: FrameType | None) -> None:
    """Raise the interruption, if it may be raised now, and let a timer try again: an interruption may get lost."""
    waits = False
    if hasattr(signal, "setitimer") and not _state.noticed:
        waits = _makes_something(frame) and time.monotonic() - _state.at < PATIENCE_SECONDS
        signal.setitimer(signal.ITIMER_REAL, SOON_SECONDS if waits else INSIST_SECONDS, INSIST_SECONDS)
    if not waits and _is_open():
        raise Interrupted(_state.received or signal.SIGINT)


def _makes_something(frame: FrameType | None) -> bool:
    """Return whether an import is under way, or a handler is made or logging configured: an exception would tear it apart."""
    while frame is not None:
        code = frame.f_code
        if code.co_filename == OF_IMPORTS:
            return True
        if code.co_name in ("__init__", "configure") and code.co_filename.startswith(OF_LOGGING):
            return True
        frame = frame.f_back
    return False


def _is_open() -> bool:
    """Return whether a signal has come, nothing was made of it yet, and it may be raised now."""
    return _state.received is not None and not _state.noticed and not _state.held and not _state.held_to_boundary


def _notice() -> None:
    _state.noticed = True
    if hasattr(signal, "setitimer") and _state.received is not None:
        signal.setitimer(signal.ITIMER_REAL, 0.0)


def _let_go() -> Exception | KeyboardInterrupt | None:
    """Leave a stage; return what is to be raised at its end."""
    _state.boundaries -= 1
    _state.held_to_boundary = False
    error, _state.postponed = _state.postponed, None
    return error or (Interrupted(_state.received or signal.SIGINT) if _is_open() else None)


def _end(message: str, number: int) -> None:
    """End the process here and now, and its children; nothing is unwound, so that nothing can complain."""
    if not _ending.acquire(blocking=False):  # the main thread and the one that hears signals may both come here
        time.sleep(INSIST_SECONDS)
    for process in _state.children:
        with contextlib.suppress(OSError):
            process.kill()
    with contextlib.suppress(OSError):
        os.write(2, f"{message}\n".encode())
    os._exit(128 + number)
