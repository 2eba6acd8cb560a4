"""Brings a fault into the process that imports it: FAULT=<kind> at a moment that FAULT_SEED decides.

tests/test_fault_kinds.py puts a copy where Hydra looks for plugins, so that the command itself imports it.
"""

import ctypes
import os
import random
import resource
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

KIND, SEED, RUN = os.environ.get("FAULT", ""), os.environ.get("FAULT_SEED", ""), Path("run").absolute()
RNG = random.Random(f"{KIND} {SEED}")
CAP_DAC_OVERRIDE, PR_CAPBSET_DROP, CAPABILITY_VERSION = 1, 24, 0x20080522


def at_write(number, act):
    """Call a function before the n-th time that a file in the run's directory is opened to be written."""
    left = [number]

    def hook(event, arguments):
        if event != "open" or not isinstance(arguments[0], str) or not arguments[2] & (os.O_WRONLY | os.O_RDWR):
            return
        if Path(arguments[0]).absolute().is_relative_to(RUN):
            left[0] -= 1
            if left[0] == 0:
                act()

    sys.addaudithook(hook)


def heed_permissions():
    """Let root be refused what permissions forbid, in this process and in those that it starts."""
    if os.geteuid() != 0:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header, data = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0), (ctypes.c_uint32 * 6)()
    assert libc.prctl(PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, 0, 0, 0) == 0
    assert libc.capget(header, data) == 0
    for place in range(3):  # effective, permitted, inheritable
        data[place] &= ~(1 << CAP_DAC_OVERRIDE)
    assert libc.capset(header, data) == 0


def make_read_only():
    """Take the right to write away from all directories of the run, and from every second run's files too."""
    for path in (RUN, *RUN.rglob("*")):
        if path.is_dir():
            path.chmod(0o555)
        elif int(SEED) % 2:
            path.chmod(0o444)


def in_stage(act):
    """Call a function where the stage FAULT_STAGE begins, of the job FAULT_JOB of a sweep; what it returns, at its end."""
    from hydra.core.hydra_config import HydraConfig

    from pipeline import runner

    run_stage, run_stages, undo = runner.Stage.run, runner.run_stages, []

    def run_job(*arguments, **settings):
        try:
            return run_stages(*arguments, **settings)
        finally:
            if "FAULT_JOB" in os.environ and undo:
                undo.pop()()

    def run(self, context):
        job = os.environ.get("FAULT_JOB")
        if self.name != os.environ["FAULT_STAGE"] or (job is not None and job != str(HydraConfig.get().job.num)):
            return run_stage(self, context)
        undo.append(act())
        found = run_stage(self, context)
        if KIND == "kill":  # it has come to the end of the stage
            (context.directory.path / ".staging").mkdir(exist_ok=True)
            (context.directory.path / ".staging" / "half.onnx").write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)
        return found

    runner.Stage.run, runner.run_stages = run, run_job


def kill_later():
    """Kill this process after a moment; the first seed waits for the end of the stage."""
    moment = RNG.uniform(0.0, 0.3)
    if SEED != "0":
        threading.Thread(target=lambda: (time.sleep(moment), os.kill(os.getpid(), signal.SIGKILL)), daemon=True).start()


def limit_memory():
    """Let this process have hardly more memory than it uses now; one that hangs for that is killed.

    What the allocator of the C library has free would last for a stage: it is taken too, but for what the seed leaves.
    """
    signal.alarm(100)
    status = Path("/proc/self/status").read_text(encoding="ascii")
    has = next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmData:"))
    left = int(2 ** RNG.uniform(14, 21))  # 16 kB to 2 MB
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, (ctypes.c_void_p,)
    libc.malloc.argtypes = (ctypes.c_size_t,)
    kept = [libc.malloc(16384) for _ in range(left >> 14)]
    before = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (has, before[1]))
    for size in (1 << 20, 1 << 16, 1 << 12, 1 << 10):
        while libc.malloc(size):
            pass
    for block in kept:
        libc.free(block)
    return lambda: (signal.alarm(0), resource.setrlimit(resource.RLIMIT_DATA, before))


def let_the_clock_jump():
    """Set the wall clock to another time again and again, and stop the process for a moment once, as a machine that sleeps."""
    time.sleep = lambda seconds: select.select([], [], [], seconds)  # libfaketime 0.9.10 breaks that of Python 3.11
    file, me = os.environ["FAKETIME_TIMESTAMP_FILE"], os.getpid()
    offsets = [RNG.choice((-1, 1)) * int(10 ** RNG.uniform(0, 8)) for _ in range(500)]  # of 1 s to 3 years
    jumps = "; ".join(f"echo {one:+d} > {file}.new; mv {file}.new {file}; kill -0 {me} || exit; sleep 0.05" for one in offsets)
    pause = f"sleep {RNG.uniform(0.1, 0.6)}; kill -STOP {me}; sleep 0.3; kill -CONT {me}"
    outside = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    for script in (jumps, pause):
        subprocess.Popen(["sh", "-c", script], env=outside, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def wait_for_word():
    """Say that the moment has come, and wait until the other run has had its turn."""
    Path("reached").touch()
    until = time.monotonic() + 60
    while not Path("go").exists() and time.monotonic() < until:
        time.sleep(0.005)


match KIND:
    case "read-only":
        heed_permissions()
        at_write(int(os.environ["FAULT_WRITE"]), make_read_only)
    case "kill":
        in_stage(kill_later)
    case "memory":
        in_stage(limit_memory)
    case "clock":
        let_the_clock_jump()
    case "wait":
        at_write(int(os.environ["FAULT_WRITE"]), wait_for_word)
