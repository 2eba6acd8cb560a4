"""A server of adb on loopback with one device, which is this machine: what adb's own client connects to.

It speaks the part of the protocol that `adb shell -T` uses (OVERVIEW.TXT, SERVICES.TXT and shell_protocol.h of adb's source):
requests with four hex digits of length before them, answered by OKAY or FAIL; then a shell's packets, one byte of kind and four
of length before each. As on Android, the shell begins in a directory that its user need not be able to write to.
"""

import contextlib
import os
import signal
import socket
import socketserver
import struct
import subprocess
import threading

VERSION = 41  # of the protocol: a client that has another one would end this server and start its own
STDIN, STDOUT, STDERR, EXIT, CLOSE_STDIN = range(5)
FEATURES = "shell_v2,cmd"


class Connection(socketserver.StreamRequestHandler):
    """One connection of a client."""

    def handle(self):
        """Answer requests until one has taken the connection over."""
        while length := self.rfile.read(4):
            request = self.rfile.read(int(length, 16)).decode()
            self.server.requests.append(request)
            if request == "host:version":
                self._answer(f"{VERSION:04x}")
                return
            if request.startswith(("host:tport:", "host:transport")):
                if request.rpartition(":")[2] not in (self.server.serial, "any", "host:transport-any"):
                    self._send(b"FAIL", f"device '{request.rpartition(':')[2]}' not found")
                    return
                self.wfile.write(b"OKAY" + (struct.pack("<Q", 1) if request.startswith("host:tport:") else b""))
            elif request.endswith(":features"):
                serial = request.removesuffix(":features").removeprefix("host-serial:")
                if serial not in (self.server.serial, "host"):
                    self._send(b"FAIL", f"device '{serial}' not found")
                    return
                self._answer(FEATURES)
                return
            elif request.startswith("shell,v2"):
                self.wfile.write(b"OKAY")
                self._shell(request.partition(":")[2])
                return
            else:
                self._send(b"FAIL", f"not known here: {request}")
                return

    def _answer(self, text):
        self._send(b"OKAY", text)

    def _send(self, status, text):
        self.wfile.write(status + f"{len(text):04x}".encode() + text.encode())

    def _shell(self, command):
        process = subprocess.Popen(
            ["sh", "-c", command], cwd="/", stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            start_new_session=True, env={"PATH": os.environ["PATH"]},
        )  # fmt: skip
        lock = threading.Lock()

        def send(kind, content):
            with lock, contextlib.suppress(OSError):
                self.connection.sendall(struct.pack("<BI", kind, len(content)) + content)

        def passed_on(kind, pipe):
            with pipe:
                while block := os.read(pipe.fileno(), 1 << 15):
                    send(kind, block)

        readers = [
            threading.Thread(target=passed_on, args=both, daemon=True)
            for both in ((STDOUT, process.stdout), (STDERR, process.stderr))
        ]
        for reader in readers:
            reader.start()

        def ended():
            for reader in readers:
                reader.join()
            send(EXIT, bytes([process.wait() & 0xFF]))
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)

        threading.Thread(target=ended, daemon=True).start()
        with contextlib.suppress(OSError, ValueError):
            while head := self.rfile.read(5):
                kind, length = struct.unpack("<BI", head)
                content = self.rfile.read(length)
                if kind == STDIN:
                    process.stdin.write(content)
                    process.stdin.flush()
                elif kind == CLOSE_STDIN:
                    break
        with contextlib.suppress(OSError):
            process.stdin.close()
        for reader in readers:
            reader.join()
        with contextlib.suppress(ProcessLookupError):  # adbd ends what a shell has left
            os.killpg(process.pid, signal.SIGHUP)


class Server(socketserver.ThreadingTCPServer):
    """The server, with one device.

    Attributes:
        serial: of the device.
        requests: what was asked for.
    """

    daemon_threads = True

    def __init__(self, serial):
        """Listen on a free port of loopback."""
        super().__init__(("127.0.0.1", 0), Connection)
        self.serial = serial
        self.requests = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def port(self):
        """Where it listens."""
        return self.server_address[1]
