"""The server: pages of runs, their files, and scores, for a browser on this machine.

What lies in the directory may come from strangers, and so may what a browser asks for on behalf of another page. So: a request
has a `Host` of ours (a name that was pointed at this machine is refused), no file outside of the directory is sent, no script
runs but this project's own, and no page asks anything of another machine.
"""

import base64
import hashlib
import ipaddress
import json
import logging
import re
import socket
import sys
import threading
from collections.abc import Callable
from functools import cache
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from typing import Any, BinaryIO, cast
from urllib.parse import parse_qs

from pipeline.report.html.index_page import index_page
from pipeline.report.html.language import in_language, tr
from pipeline.report.html.listen_page import ROUNDS, Comparison, HeardVersion, PastSeries, listen_page
from pipeline.report.html.render import TEMPLATES
from pipeline.report.run_index import read_index, remembered
from pipeline.serve.heard_versions import Version, chosen, pairs_of, versions_below
from pipeline.serve.scores import (
    SCORES_FILE,
    ScoreError,
    guessing_probability,
    keep,
    read_scores,
    series_of,
)
from pipeline.serve.served_files import RefusedError, names_in, open_inside

log = logging.getLogger(__name__)

LISTEN, SCORES = "/listen", "/scores"
MOST_SENT = 64 << 10  # bytes of a score
MOST_PAGE = 64 << 20  # bytes of a page that is looked through before it is sent
BLOCK = 1 << 18
PLAIN = "text/plain; charset=utf-8"
TYPES = {".wav": "audio/wav", ".json": "application/json", ".html": "text/html; charset=utf-8"}
TEXTS = (".txt", ".yaml", ".md", ".log", ".csv", ".py", ".jsonl")
OUR_HEAD = (b"""<meta http-equiv="Content-Security-Policy" content="default-src 'none';""", b'<link rel="icon" href="data:,">')
ONCE = (b"http-equiv", b"<link")  # no Content-Security-Policy keeps them from leading elsewhere, or from connecting
NEVER = (b"<iframe", b"<frame", b"<object", b"<embed", b"<base")  # Chromium connects for a frame that a policy then refuses


@cache
def script_hashes() -> str:
    """Return the scripts that pages may run, as a policy names them: this project's own."""
    codes = [path.read_text(encoding="utf-8") for path in sorted(TEMPLATES.glob("*.js"))]
    return " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()}'" for code in codes)


def policy(*, sandbox: str | None, connects: bool = False) -> str:
    """Return a Content-Security-Policy that allows no request to another machine.

    Args:
        sandbox: what a file of a run may do, in an origin of its own; None: a page that this server makes.
        connects: whether the page may ask this server.
    """
    rules = ["default-src 'none'", "img-src data:", "media-src data:", "style-src 'unsafe-inline'"]
    rules += [f"script-src {script_hashes()}", "base-uri 'none'", "frame-ancestors 'none'"]
    rules += ["connect-src 'self'", "form-action 'self'"] if connects else ["form-action 'none'"]
    return "; ".join(rules if sandbox is None else [*rules, f"sandbox {sandbox}".strip()])


def is_own_page(page: bytes) -> bool:
    """Whether a saved page has a head of this project's and, of what a policy does not rule, nothing more.

    A page of a stranger may hold anything else that this one holds: the policy that it is sent with keeps it from harm.
    """
    lower = page.lower()
    return (
        page.startswith(b"<!DOCTYPE html>")
        and all(text in page for text in OUR_HEAD)
        and all(lower.count(text) == 1 for text in ONCE)
        and not any(text in lower for text in NEVER)
    )


class PageServer(ThreadingHTTPServer):
    """Serves a directory of runs."""

    daemon_threads = True

    def __init__(self, root: Path, host: str, port: int, language: str) -> None:
        """Listen, and answer nothing yet.

        Args:
            root: the directory, without links in its path.
            host: the address to listen on: a loopback one, unless others shall reach it.
            port: 0: one that is free.
            language: of the pages, en or zh.

        Raises:
            OSError: the address or the port cannot be had.
        """
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.root, self.host, self.language = root, host, language
        self.memory = remembered(root)
        self.reading, self.writing = threading.Lock(), threading.Lock()
        super().__init__((host, port), _Handler)

    @property
    def url(self) -> str:
        """The address of the page of all runs."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.server_port}/"

    def server_bind(self) -> None:
        """Bind without asking a name server for the name of this machine, as the base class would."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self.host, self.server_address[1]

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of a browser that went away; log what is a defect."""
        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
            log.exception("a request of %s", client_address)

    def knows(self, host: str | None) -> bool:
        """Whether a `Host` header is one that a page of ours has: an address, never a name that somebody can point here."""
        found = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^:\[\]]+)(?::(\d{1,5}))?", host or "")
        if found is None or int(found[2] or 80) != self.server_port:
            return False
        name = found[1].strip("[]").lower()
        if name in ("localhost", self.host.lower()):
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return address.is_loopback or not is_loopback(self.host)

    def index(self) -> str:
        """Return the page of all runs as they are now."""
        with self.reading:
            index = read_index(self.root, memory=self.memory)
        with in_language(self.language):
            return index_page(index, self.root, LISTEN)

    def listen(self, query: dict[str, list[str]]) -> str:
        """Return the page to compare by ear."""
        versions = versions_below(self.root)
        first, second = (query.get(key, [None])[0] for key in ("a", "b"))
        pair = chosen(versions, first, second)
        wanted = query.get("rounds", [""])[0]
        rounds = next((count for count in ROUNDS if str(count) == wanted), ROUNDS[0])
        notice, comparison = "", None
        with in_language(self.language):
            if pair is None:
                notice = tr("No run here has two versions of a sample: they lie in its folder samples/.")
            elif pair[0] == pair[1]:
                notice = tr("A and B are the same; choose two versions.")
            elif not (samples := pairs_of(*pair)):
                notice = tr("The two have no sample in common: compare runs of the same samples.")
            else:
                past, not_kept = self._past(*pair)
                comparison = Comparison(_shown(pair[0]), _shown(pair[1]), samples, past, not_kept)
            if (first or second) and (first not in versions or second not in versions):
                notice = tr("What the address names is not here.")
                comparison = None
            return listen_page([_shown(version) for version in versions.values()], comparison, notice, rounds, SCORES)

    def _past(self, first: Version, second: Version) -> tuple[list[PastSeries], str]:
        try:
            known = read_scores(self.root)
        except ScoreError as error:
            return [], str(error)
        return [
            PastSeries(one["time"], one["right"], one["of"], guessing_probability(one["right"], one["of"]))
            for one in known
            if {one["a"], one["b"]} == {first.id, second.id}
        ], ""

    def keep_score(self, sent: object) -> dict[str, Any]:
        """Keep a series, and return it.

        Raises:
            ScoreError: it is none, or the file cannot take it.
            OSError: the directory cannot be written.
        """
        series = series_of(sent, versions_below(self.root))
        with self.writing:
            keep(self.root, series)
        return series


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _shown(version: Version) -> HeardVersion:
    return HeardVersion(version.id, version.run, version.kind)


class _RefusalError(Exception):
    """A request is not answered as it would like: the status says why to the browser, the text to a person."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class _Handler(BaseHTTPRequestHandler):
    """Answers one request; each has a connection of its own."""

    server_version, sys_version = "speech-quantize", ""
    timeout = 30  # seconds without a byte from the browser

    @property
    def _pages(self) -> PageServer:
        return cast(PageServer, self.server)

    def do_GET(self) -> None:
        """Answer with a page or a file."""
        self._answer(self._get)

    def do_HEAD(self) -> None:
        """Answer as to GET, without the body."""
        self._answer(self._get)

    def do_POST(self) -> None:
        """Take the score of a series, from a page of this server."""
        self._answer(self._take_score)

    def _answer(self, method: Callable[[], None]) -> None:
        try:
            if len(self.headers.get_all("Host", [])) != 1 or not self._pages.knows(self.headers["Host"]):
                raise _RefusalError(HTTPStatus.MISDIRECTED_REQUEST, "this server has another name")
            method()
        except _RefusalError as refusal:
            self._refuse(refusal.status, str(refusal))

    def _get(self) -> None:
        path, _, query = self.path.partition("?")
        if path in ("/", "/index.html"):
            self._send_text(self._pages.index(), policy(sandbox=None))
        elif path == LISTEN:
            try:
                asked = parse_qs(query, max_num_fields=10)
            except ValueError:
                raise _RefusalError(HTTPStatus.BAD_REQUEST, "too many fields") from None
            self._send_text(self._pages.listen(asked), policy(sandbox=None, connects=True))
        else:
            try:
                names = names_in(path)
                file = open_inside(self._pages.root, names)
            except RefusedError as error:
                raise _RefusalError(HTTPStatus.FORBIDDEN, str(error)) from None
            except (OSError, ValueError):  # a folder that is a link, too: the system calls it no folder
                raise _RefusalError(HTTPStatus.NOT_FOUND, "no such file is served") from None
            with file:
                self._send_file(file, Path(names[-1]).suffix.lower())

    def _take_score(self) -> None:
        if self.path != SCORES:
            raise _RefusalError(HTTPStatus.METHOD_NOT_ALLOWED, "only scores are taken")
        own = f"http://{self.headers['Host']}"
        if self.headers.get("Origin") != own or self.headers.get("Sec-Fetch-Site", "same-origin") != "same-origin":
            raise _RefusalError(HTTPStatus.FORBIDDEN, "scores are taken from the pages of this server only")
        if self.headers.get_content_type() != "application/json":
            raise _RefusalError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "a score is JSON")
        length = self.headers.get("Content-Length", "")
        if not re.fullmatch(r"\d{1,9}", length, re.ASCII) or "Transfer-Encoding" in self.headers:
            raise _RefusalError(HTTPStatus.LENGTH_REQUIRED, "a score has a length")
        if int(length) > MOST_SENT:
            raise _RefusalError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a score has at most {MOST_SENT} bytes")
        try:
            sent = json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError):
            raise _RefusalError(HTTPStatus.BAD_REQUEST, "this is no JSON") from None
        try:
            series = self._pages.keep_score(sent)
        except ScoreError as error:
            raise _RefusalError(HTTPStatus.BAD_REQUEST, str(error)) from None
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise _RefusalError(HTTPStatus.INSUFFICIENT_STORAGE, f"{SCORES_FILE} cannot be written ({reason})") from None
        body = json.dumps({key: series[key] for key in ("time", "right", "of", "guessing_probability")})
        self._send(HTTPStatus.OK, body.encode(), "application/json", policy(sandbox=""))

    def _send_text(self, text: str, rules: str) -> None:
        self._send(HTTPStatus.OK, text.encode("utf-8"), TYPES[".html"], rules)

    def _send_file(self, file: BinaryIO, suffix: str) -> None:
        kind = TYPES.get(suffix, PLAIN if suffix in TEXTS else "application/octet-stream")
        if suffix == ".html":
            page = file.read(MOST_PAGE + 1)
            if len(page) > MOST_PAGE:
                raise _RefusalError(HTTPStatus.FORBIDDEN, f"a page has at most {MOST_PAGE >> 20} MiB")
            if is_own_page(page):
                self._send(HTTPStatus.OK, page, kind, policy(sandbox="allow-scripts allow-downloads"))
            else:
                self._send(HTTPStatus.OK, page, PLAIN, policy(sandbox=""))
            return
        size = file.seek(0, 2)
        file.seek(0)
        self._begin(HTTPStatus.OK, size, kind, policy(sandbox=""), download=kind == "application/octet-stream")
        while self.command != "HEAD" and size > 0 and (block := file.read(min(BLOCK, size))):
            size -= len(block)
            self.wfile.write(block)

    def _refuse(self, status: HTTPStatus, reason: str) -> None:
        self._send(status, f"{reason}\n".encode(), PLAIN, policy(sandbox=""))

    def _send(self, status: int, body: bytes, kind: str, rules: str) -> None:
        self._begin(status, len(body), kind, rules)
        if self.command != "HEAD":
            self.wfile.write(body)

    def _begin(self, status: int, size: int, kind: str, rules: str, *, download: bool = False) -> None:
        self.send_response(status)
        for name, value in {
            "Content-Type": kind,
            "Content-Length": str(size),
            "Content-Security-Policy": rules,
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "DENY",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cache-Control": "no-store",
        }.items():
            self.send_header(name, value)
        if download:
            self.send_header("Content-Disposition", "attachment")
        if status == HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET, HEAD")
        self.end_headers()

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer what the base class refuses: a method that is not known here, or a line that is no request."""
        status = HTTPStatus.METHOD_NOT_ALLOWED if code == HTTPStatus.NOT_IMPLEMENTED else HTTPStatus(code)
        self._refuse(status, status.phrase.lower())

    def log_message(self, format: str, *args: object) -> None:
        """Keep requests out of the terminal."""
        log.debug(format, *args)
