"""The real command as its user sees it: on a terminal, in a pipe, behind `head -1`."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios

import pytest

from tests.conftest import COMMAND_LIMIT_S, REPO, _surroundings

QUICK = ("mode=dynamic", "stages=[load,quantize]")
TOOK = re.compile(r"\d\d:\d\d:\d\d (\w+) took [\d.]+ s")
BAR = "━"


def screen_of(written, width):
    """Return the lines that are left on a terminal: characters are overwritten, and lines erased, as it would."""
    lines, row, column = [[]], 0, 0
    for token in re.findall(r"\x1b\[[?0-9;]*[A-Za-z]|.|\n", written.replace("\r\n", "\n").replace("\n", "\r\n"), re.DOTALL):
        if token == "\n":
            row += 1
        elif token == "\r":
            column = 0
        elif token.startswith("\x1b["):
            count = int(token[2:-1]) if token[2:-1].isdigit() else 1
            if token.endswith("A"):
                row = max(row - count, 0)
            elif token.endswith("K"):
                lines[row] = []
        else:
            if column == width:
                row, column = row + 1, 0
            lines += [[] for _ in range(row + 1 - len(lines))]
            lines[row] += [" "] * (column + 1 - len(lines[row]))
            lines[row][column] = token
            column += 1
        lines += [[] for _ in range(row + 1 - len(lines))]
    return ["".join(line).rstrip() for line in lines]


@pytest.fixture
def on_terminal(tmp_path):
    """Return a function that runs the command on a terminal of a given width, and gives all that it has written there."""

    def run(width, *overrides, **variables):
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, width, 0, 0))
        environment = _surroundings(tmp_path) | {"TERM": "xterm-256color"} | variables
        del environment["COLUMNS"]
        with subprocess.Popen(
            [sys.executable, str(REPO / "run.py"), *overrides], cwd=tmp_path, env=environment, stdin=theirs, stdout=theirs,
            stderr=theirs,
        ) as process:  # fmt: skip
            os.close(theirs)
            written = b""
            while True:
                try:
                    chunk = os.read(ours, 65536)
                except OSError:  # Linux' answer where nobody writes any more
                    break
                if not chunk:
                    break
                written += chunk
            assert process.wait(COMMAND_LIMIT_S) == 0, written.decode()
        os.close(ours)
        return written.decode()

    return run


def test_on_a_terminal_bars_are_gone_at_the_end_and_no_log_line_is_glued_to_one(user_files, on_terminal, users_model):
    written = on_terminal(60, *users_model, "mode=dynamic", "stages=[load,inspect,quantize]")
    assert BAR in written
    lines = screen_of(written, 60)
    assert [TOOK.fullmatch(line)[1] for line in lines if "took" in line] == ["load", "inspect", "quantize"]
    assert not any(BAR in line for line in lines)
    [directory] = user_files.glob("outputs/*/dynamic/*")
    assert f"page:\r\n{directory}/report.html\r\n" in written or f"page: {directory}/report.html\r\n" in written


def test_a_terminal_without_colour_gets_none_and_one_that_is_dumb_gets_no_bars(user_files, on_terminal, users_model):
    written = on_terminal(80, *users_model, *QUICK, NO_COLOR="1", TERM="dumb", LC_ALL="C")
    assert "\x1b" not in written
    assert [TOOK.fullmatch(line)[1] for line in written.splitlines() if "took" in line] == ["load", "quantize"]


def test_results_are_on_standard_output_and_logs_on_standard_error(user_files, run_quickly, users_model, users_data):
    run = run_quickly(*users_model, *users_data, "mode=static", "stages=[load,quantize,evaluate]").succeeded()
    assert "took" not in run.stdout
    assert TOOK.findall(run.stderr) == ["load", "quantize", "evaluate"]
    assert "Quality on" in run.stdout and "Quality on" not in run.stderr
    assert "took" in (run.directory / "run.log").read_text(encoding="utf-8")
    [warning] = [warning for warning in run.report["warnings"] if "Fewer than 16" in warning]
    assert (run.stdout.count(warning), run.stderr.count(warning)) == (1, 0)
    assert run.stdout.endswith(
        f"model: {run.directory}/model.int8.onnx\nreport: {run.directory}/report.json\npage: {run.directory}/report.html\n"
    )


def test_a_run_that_fails_still_tells_its_warnings_once(user_files, run_quickly, users_model, users_data):
    run = run_quickly(*users_model, *users_data, "mode=dynamic", "mode.op_types=[LSTM]", "stages=[load,quantize]")
    assert run.exit_code == 2
    [warning] = run.report["warnings"]
    assert run.stderr.count(f"warning: {warning}\n") == 1
    assert run.stderr.index(warning) < run.stderr.index("error: ")
    assert run.stdout == ""


@pytest.mark.parametrize("look", [("--cfg", "job"), ("--info", "all"), QUICK], ids=["settings", "info", "run"])
def test_a_reader_that_goes_away_gets_no_complaint_and_the_run_goes_on(user_files, users_model, look):
    with subprocess.Popen(
        [sys.executable, str(REPO / "run.py"), *users_model, *look], cwd=user_files, env=_surroundings(user_files),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        process.stdout.close()  # before anything is printed, as `head -0` would
        said = process.stderr.read()
    assert process.returncode == 0, said
    for word in ("Logging error", "Traceback", "Broken pipe", "Exception ignored"):
        assert word not in said
    if look is QUICK:
        assert TOOK.findall(said) == ["load", "quantize"]
        assert len(list(user_files.glob("outputs/*/dynamic/*/report.html"))) == 1


def test_a_reader_of_the_log_that_goes_away_does_not_end_the_run(user_files, users_model):
    with subprocess.Popen(
        [sys.executable, str(REPO / "run.py"), *users_model, *QUICK], cwd=user_files, env=_surroundings(user_files),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        process.stderr.close()
        said = process.stdout.read()
    assert process.returncode == 0
    assert said.endswith("report.html\n")
