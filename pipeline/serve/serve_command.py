"""`serve <directory>`: read what the command line says, serve until Ctrl-C."""

import argparse
import sys
from pathlib import Path
from typing import NoReturn

from pipeline.config.help_text import program
from pipeline.errors import ConfigError
from pipeline.interruption import begin
from pipeline.record.console import Paragraph, result_console, say
from pipeline.record.run_directory import REPORT_FILE
from pipeline.report.html.language import HTML_NAMES
from pipeline.report.run_index import read_index

SERVE = "serve"
LOOPBACK = "127.0.0.1"
_DESCRIPTION = """\
Show the runs below a directory in a browser: all of them to search and filter, each with its page, and any two versions of a
sample to compare by ear, blind. Nothing in the directory is changed but listening_scores.json, which keeps your scores. Ctrl-C
ends it."""


class _Arguments(argparse.ArgumentParser):
    """A parser whose errors are like all others of this command."""

    def error(self, message: str) -> NoReturn:
        """Raise what ends the command with one line."""
        raise ConfigError(f"{SERVE}: {message}. As in: {SERVE} outputs --port 8000")


def serve(given: list[str]) -> NoReturn:
    """Serve a directory of runs until Ctrl-C.

    Args:
        given: what the command line has behind `serve`.

    Raises:
        ConfigError: the directory holds no run, or the address or the port cannot be had.
        KeyboardInterrupt: Ctrl-C or SIGTERM.
    """
    options = _parser().parse_args(given)
    root = Path(options.directory)
    if not root.is_dir():
        raise ConfigError(f"{SERVE}: {root} is not a directory. Give one that runs lie in: {SERVE} outputs.")
    root = root.resolve()
    begin()
    try:
        _serve(root, options)
        sys.exit(0)
    except KeyboardInterrupt as error:
        error.add_note(f"no longer serving {root}")
        raise


def _parser() -> argparse.ArgumentParser:
    parser = _Arguments(prog=f"{program(sys.argv[0])} {SERVE}", description=_DESCRIPTION, allow_abbrev=False)
    parser.add_argument("directory", help="that runs lie in, such as outputs")
    parser.add_argument("--port", type=_port, default=0, help="default: one that is free")
    parser.add_argument("--host", default=LOOPBACK, help=f"address to listen on; default: {LOOPBACK}, this machine alone")
    parser.add_argument("--language", choices=sorted(HTML_NAMES), default="en", help="of the pages; default: en")
    return parser


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 <= int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"{text!r} is no port: 0 (any that is free) to 65535")
    return int(text)


def _serve(root: Path, options: argparse.Namespace) -> None:
    from pipeline.serve.page_server import PageServer, is_loopback

    try:
        server = PageServer(root, options.host, options.port, options.language)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"{SERVE}: cannot listen on {options.host}, port {options.port or 'any'}: {reason}. "
            "--port 0 takes one that is free; without --host it is this machine alone."
        ) from error
    with server:
        count = read_index(root, memory=server.memory).count
        if not count:
            raise ConfigError(
                f"{SERVE}: no run lies in {root}: no {REPORT_FILE} in <model>/<mode>/<timestamp>. Give one that runs lie in: "
                f"{SERVE} outputs."
            )
        if not is_loopback(options.host):
            say(
                f"warning: --host {options.host}: whoever reaches this machine can read every run in {root}, unencrypted, and "
                "add scores. Without --host only this machine can.",
                "yellow",
            )
        console = result_console()
        console.print(Paragraph(f"{count} runs: {server.url}   (Ctrl-C ends it)"), crop=False)
        sys.stdout.flush()
        server.serve_forever()
