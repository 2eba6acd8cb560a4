"""An environment in which ONNX Runtime for 64-bit ARM runs on an x86-64 Linux, emulated by QEMU (Debian's package qemu-user).

    python benchmarks/arm_environment.py FOLDER                 # makes it, by apt-get and pip; about 100 MB
    ARM_ENVIRONMENT=FOLDER python -m pytest -m qemu tests/test_arm.py
    python benchmarks/processors.py --arm FOLDER

Holds a Python of Debian for arm64, unpacked and not installed, and the wheels of the onnxruntime and numpy that run this. The
processor is a Cortex-A76 (with dot products): the arithmetic is that of the processor, the speed is not.
"""

import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

PACKAGES = (
    "python3.11-minimal", "libpython3.11-minimal", "libpython3.11-stdlib", "libc6", "libgcc-s1", "libstdc++6", "libexpat1",
    "zlib1g", "libffi8", "libbz2-1.0", "liblzma5", "libssl3", "libcrypt1", "libsqlite3-0", "libuuid1",
)  # fmt: skip
WHEELS = ("onnxruntime", "numpy", "flatbuffers", "protobuf", "packaging")
FEATURES = "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"
CPU = "\n".join(
    f"processor\t: {number}\nBogoMIPS\t: 48.00\nFeatures\t: {FEATURES}\nCPU implementer\t: 0x41\nCPU architecture: 8\n"
    "CPU variant\t: 0x4\nCPU part\t: 0xd0b\nCPU revision\t: 0\n"
    for number in range(2)
)


def command_in(folder: Path) -> tuple[str, ...]:
    """Return the command that runs the environment's Python."""
    folder = folder.resolve()
    home, site, root = folder / "root" / "usr", folder / "site", folder / "root"
    return (
        "env", f"PYTHONHOME={home}", f"PYTHONPATH={site}", "qemu-aarch64", "-cpu", "cortex-a76", "-L", str(root),
        str(home / "bin" / "python3.11"),
    )  # fmt: skip


def make(folder: Path) -> None:
    """Fill a folder."""
    folder = folder.resolve()
    for part in ("lists/partial", "cache/archives/partial", "root/proc", "site", "deb", "wheels"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    # ONNX Runtime's cpuinfo library fails on that of an x86-64 processor; QEMU opens the files below its root first.
    (folder / "root/proc/cpuinfo").write_text(CPU, encoding="utf-8")
    apart = {
        "APT::Architecture": "arm64", "APT::Architectures": "arm64", "Dir::State::Lists": folder / "lists",
        "Dir::Cache": folder / "cache", "Dir::State::status": "/dev/null",
    }  # fmt: skip
    options = [argument for key, value in apart.items() for argument in ("-o", f"{key}={value}")]
    subprocess.run(["apt-get", *options, "-qq", "update"], check=True)
    subprocess.run(["apt-get", *options, "-qq", "download", *PACKAGES], check=True, cwd=folder / "deb")
    for package in (folder / "deb").glob("*.deb"):
        subprocess.run(["dpkg", "-x", str(package), str(folder / "root")], check=True)
    pinned = [f"{name}=={version(name)}" for name in WHEELS]
    platforms = [part for tag in ("2_28", "2_27", "2_17") for part in ("--platform", f"manylinux_{tag}_aarch64")]
    old = ["--platform", "manylinux2014_aarch64", "--python-version", "311"]
    where = ["--no-deps", "--only-binary=:all:", "-q", "-d", str(folder / "wheels")]
    subprocess.run([sys.executable, "-m", "pip", "download", *where, *platforms, *old, *pinned], check=True)
    for wheel in (folder / "wheels").glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder / "site")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    make(Path(sys.argv[1]))
    print(subprocess.run([*command_in(Path(sys.argv[1])), "-c", "import onnxruntime as o; print(o.__version__)"],
                         check=True, capture_output=True, text=True).stdout.strip())  # fmt: skip
