"""From the address of a device to the command that connects to it: OpenSSH's client, or Android's adb.

Keys, ports and jump hosts are those of the user's ~/.ssh/config; keys of hosts are verified. adb finds phones that the user has
allowed. Either gives a program there its standard input and output. What the shell there is given is a constant but for the
name of the Python, whose signs are restricted.
"""

import re
from pathlib import Path
from urllib.parse import urlsplit

from pipeline.errors import ConfigError

KEY = "benchmark.host"
PYTHON = re.compile(r"[A-Za-z0-9_./-]+")
WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]*")
ADB = "adb://"
ALLOWED = "ssh://user@host, or ssh://user@host:port; of an Android device adb://serial, or adb:// where there is one"
OPTIONS = (
    "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o", "ConnectTimeout=15", "-o", "ServerAliveInterval=5",
    "-o", "ServerAliveCountMax=3", "-o", "LogLevel=ERROR", "-T",
)  # fmt: skip
RECEIVE = (  # a shell's quotes hold it, so it is one line; nothing may be read beyond the program
    "import os,sys;n=int(sys.argv[1]);b=bytearray();"
    "[b.extend(os.read(0,n-len(b)) or sys.exit(1)) for _ in iter(lambda:len(b)<n,False)];"
    "exec(compile(bytes(b),'remote_device.py','exec'))"
)


def command_of(host: str, python: str, config: str | None, program_bytes: int) -> list[str]:
    """Return the command that connects to a device, and runs a program there that is written to its standard input.

    Args:
        host: ssh://user@host, ssh://user@host:port, adb://serial or adb://.
        python: the interpreter on the device.
        config: a configuration file in the place of ~/.ssh/config; None: that one.
        program_bytes: length of the program.

    Raises:
        ConfigError: one of them is not allowed.
    """
    if not PYTHON.fullmatch(python) or python.startswith("-"):
        raise ConfigError(f"{KEY}_python: {python!r} is not allowed: letters, digits and _ . / - only.")
    there = f'exec {python} -u -c "{RECEIVE}" {program_bytes} {python}'
    return [*(_adb(host, config) if host.startswith(ADB) else _ssh(host, config)), there]


def _ssh(host: str, config: str | None) -> list[str]:
    parts = urlsplit(host)
    named = [part for part in (parts.hostname, parts.username) if part is not None]
    if parts.scheme != "ssh" or not parts.hostname or parts.path.strip("/") or not all(map(WORD.fullmatch, named)):
        raise ConfigError(f"{KEY}: {host!r} is not an address of a device; give {ALLOWED}.")
    if parts.password is not None:
        raise ConfigError(
            f"{KEY}: a password is not taken; use a key: ssh-copy-id {parts.username or 'user'}@{parts.hostname}."
        )
    if config is not None and not Path(config).expanduser().is_file():
        raise ConfigError(f"benchmark.ssh_config: there is no file {config}.")
    try:
        port = ["-p", str(parts.port)] if parts.port is not None else []
    except ValueError as error:
        raise ConfigError(f"{KEY}: {host!r}: the port is a number up to 65535.") from error
    user = f"{parts.username}@" if parts.username else ""
    own = ["-F", str(Path(config).expanduser().absolute())] if config is not None else []
    return ["ssh", *own, *OPTIONS, *port, "--", f"{user}{parts.hostname}"]


def _adb(host: str, config: str | None) -> list[str]:
    """Return the command of adb; -T: no terminal, which would change bytes."""
    serial = host.removeprefix(ADB)
    if serial and not WORD.fullmatch(serial):
        raise ConfigError(f"{KEY}: {host!r} is not an address of a device; give {ALLOWED}. `adb devices` lists serials.")
    if config is not None:
        raise ConfigError(f"benchmark.ssh_config: {host} is not reached by ssh; leave it out.")
    return ["adb", *(["-s", serial] if serial else []), "shell", "-T"]
