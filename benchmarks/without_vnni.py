"""Run a command as on an x86 processor with AVX2 and nothing newer: its arithmetic, and the speed of its kernels on this one.

    python benchmarks/without_vnni.py python run.py model=asr mode=auto

ONNX Runtime, numpy and this project choose their kernels by what the instruction CPUID tells. `masked_cpuid.c`, preloaded into
the command and all that it starts, leaves AVX-512, AVX-VNNI and AMX out of the answer. The AVX2 kernels then run at full speed.
How they compare is that of this processor's AVX2 units: close to, not the same as, a processor that has no others.

Needs Linux on an x86-64 processor that can make CPUID fault (`cpuid_fault` in /proc/cpuinfo: Intel's since Ivy Bridge, also in
virtual machines) and a C compiler. Elsewhere QEMU gives the arithmetic, not the speed: `command()` returns what there is here.
"""

import functools
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCE = Path(__file__).with_name("masked_cpuid.c")
QEMU = "qemu-x86_64"
EMULATED = (QEMU, "-cpu", "Haswell")
FIRST_QEMU_WITH_AVX2 = (7, 2)


def command() -> tuple[str, ...]:
    """Return what to put before a command: at full speed where this machine can, else in an emulator; `missing()` is empty."""
    return masked() if not missing_for_masking() else EMULATED


def masked() -> tuple[str, ...]:
    """Return what to put before a command to mask what is newer than AVX2; `missing_for_masking()` is empty."""
    return ("env", f"LD_PRELOAD={_library()}")


def missing() -> str:
    """Return what neither way has here, or an empty text."""
    return missing_for_masking() and missing_for_emulation()


@functools.cache
def missing_for_masking() -> str:
    """Return what this machine lacks to mask what is newer than AVX2, or an empty text."""
    if not _is_linux_on_x86():
        return "Linux on an x86-64 processor"
    if "cpuid_fault" not in Path("/proc/cpuinfo").read_text(encoding="utf-8").split():
        return "a processor that can make CPUID fault"
    if _compiler() is None:
        return "a C compiler"
    done = subprocess.run([*masked(), sys.executable, "-c", ""], capture_output=True, text=True, check=False)
    return done.stderr.strip()


@functools.cache
def missing_for_emulation() -> str:
    """Return what this machine lacks to emulate a Haswell, or an empty text."""
    if not _is_linux_on_x86():
        return "Linux on an x86-64 processor, to execute its programs as an older one would"
    if shutil.which(QEMU) is None:
        return f"{QEMU}: Debian's package qemu-user"
    said = subprocess.run([QEMU, "--version"], capture_output=True, text=True, check=False).stdout
    version = tuple(int(part) for part in re.findall(r"\d+", said)[:2])
    needed = ".".join(map(str, FIRST_QEMU_WITH_AVX2))
    return (
        "" if version >= FIRST_QEMU_WITH_AVX2 else f"QEMU {needed}, the first that executes AVX2, not {said.split(chr(10))[0]}"
    )


def _is_linux_on_x86() -> bool:
    return sys.platform == "linux" and platform.machine() == "x86_64"


def _compiler() -> str | None:
    return shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")


def _library() -> Path:
    """Build the library unless it is there: its name has the hash of its source, so that an older one is never taken."""
    digest = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"speech-quantization-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise SystemExit(f"{folder} belongs to somebody else: it would be preloaded")
    library = folder / f"masked_cpuid_{digest}.so"
    if not library.exists():
        built = folder / f"{library.name}.{os.getpid()}"
        subprocess.run([_compiler() or "cc", "-O2", "-shared", "-fPIC", "-o", str(built), str(SOURCE), "-ldl"], check=True)
        built.replace(library)
    return library


if __name__ == "__main__":
    if not sys.argv[1:]:
        sys.exit(__doc__)
    if lacking := missing_for_masking():
        sys.exit(f"needs {lacking}; the arithmetic alone: {' '.join(EMULATED)} {' '.join(sys.argv[1:])}")
    os.execvp("env", [*masked(), *sys.argv[1:]])
