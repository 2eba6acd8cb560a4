"""Children of a command that need not import again what the command has: copies of its process in place of new interpreters.

A run starts `python -m pipeline.graph.rehearsal_child` once and `python -m pipeline.measure.benchmark_child` for every timing;
nine tenths of what such a child computes in a test is imports. Each one still is a process of its own, with its own arguments,
working directory, environment, files and exit status. The commands of `run_py` start interpreters, as a user's command does.
"""

import gc
import logging
import os
import runpy
import signal
import subprocess
import sys
import threading
import traceback
from pathlib import Path

MODULES = ("pipeline.graph.rehearsal_child", "pipeline.measure.benchmark_child")
ROOT = str(Path(__file__).resolve().parent.parent)
OWN_PATHS = (ROOT, os.pathsep.join([ROOT, os.environ.get("PYTHONPATH", "")]))  # imported before a command is known
TASKS = Path("/proc/self/task")
WAITING = {"signals", "progress", "steps of a child"}  # threads that wait, in Python: a copy needs nothing that they hold
FIRST = 3  # file descriptors below are standard input, output and error

start_interpreter = subprocess._fork_exec


def copy_for_children() -> None:
    """Let this process, a command, start its children as copies of itself, where that is the same for them."""
    if TASKS.is_dir():
        subprocess._fork_exec = _fork_exec


def _module_of(args: list, environment: list | None) -> str | None:
    """Return the module that a child is to be, where it can be a copy: of this interpreter and packages, with one thread."""
    words = [os.fsdecode(word) for word in args]
    if len(words) < 4 or words[:3] != [sys.executable, "-P", "-m"] or words[3] not in MODULES or environment is None:
        return None
    path = next((entry for entry in map(os.fsdecode, environment) if entry.startswith("PYTHONPATH=")), "")
    if (
        path.removeprefix("PYTHONPATH=") not in OWN_PATHS
    ):  # another ONNX Runtime comes first, or a test changes what is imported
        return None
    others = [thread for thread in threading.enumerate() if thread is not threading.current_thread()]
    if len(list(TASKS.iterdir())) != len(others) + 1 or any(one.name not in WAITING for one in others):
        return None
    return words[3]


def _fork_exec(args, executables, close_fds, keep, folder, environment, *rest):
    """Be `subprocess._fork_exec`, with its arguments: return the process id of a child."""
    module = _module_of(args, environment)
    if module is None or folder is not None:
        return start_interpreter(args, executables, close_fds, keep, folder, environment, *rest)
    child_in, _, _, child_out, _, child_err = rest[:6]
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        pid = os.fork()
        if not pid:
            _be(module, [os.fsdecode(word) for word in args[4:]], (child_in, child_out, child_err), environment, blocked)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    return pid


def _be(module: str, arguments: list[str], standard: tuple[int, ...], environment: list[bytes], blocked: set) -> None:
    """Be a child to its end: nothing of the command is unwound, written out or closed in it."""
    status = 1
    try:
        for number in signal.valid_signals():
            if callable(signal.getsignal(number)):
                signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        kept = [os.dup(own) if own >= 0 else os.dup(number) for number, own in enumerate(standard)]
        for number, descriptor in enumerate(kept):
            os.dup2(descriptor, number)
        os.closerange(FIRST, os.sysconf("SC_OPEN_MAX"))
        os.environ.clear()
        os.environ.update(entry.split("=", 1) for entry in map(os.fsdecode, environment))
        logging.root.handlers.clear()  # their files are closed
        sys.stdin, sys.stdout, sys.stderr = (os.fdopen(number, mode) for number, mode in enumerate("rww"))
        sys.argv = ["", *arguments]
        gc.freeze()  # what is here now is not looked through, and so not copied
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
