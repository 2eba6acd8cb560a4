"""What goes where: results to standard output, logs and errors to standard error, and no word of either is cut."""

import io
import logging

import pytest
from rich.console import Console

from pipeline.record import console as console_module
from pipeline.record.console import Paragraph, TerminalHandler, wrapped
from pipeline.record.run_log import RunLog

PATH = "/home/someone/projects/speech-models/outputs/asr/static/2026-01-01_00-00-00/report.html"


@pytest.mark.parametrize(
    ("text", "width", "lines"),
    [
        ("play more jazz music", 10, ["play more", "jazz music"]),
        (f"page: {PATH}", 20, ["page:", PATH]),
        ("  indented text stays so", 12, ["  indented", "  text stays", "  so"]),
        ("语音 模型 量化", 9, ["语音 模型", "量化"]),
        ("as fast for 83 % of it, 5 MiB", 14, ["as fast for", "83 % of it,", "5 MiB"]),  # no number without its unit
        ("one\ntwo", 80, ["one", "two"]),
        ("a long line in a pipe", None, ["a long line in a pipe"]),
        ("", 10, [""]),
    ],
)
def test_lines_are_broken_at_spaces_and_words_stay_whole(text, width, lines):
    assert wrapped(text, width) == lines


@pytest.mark.parametrize("width", [20, 60])
def test_a_path_is_whole_on_a_terminal_that_is_narrower(width):
    terminal = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    terminal.print(Paragraph(f"the page is {PATH}"), crop=False)
    assert PATH in terminal.file.getvalue().splitlines()


def test_a_command_that_is_to_be_copied_is_one_line_on_a_terminal_too():
    command = f"python run.py rerun={PATH} mode=static mode.method=percentile mode.percentile=99.99"
    terminal = Console(file=io.StringIO(), width=40, force_terminal=True, color_system=None)
    terminal.print(Paragraph(command, whole=True), crop=False)
    assert terminal.file.getvalue() == f"{command}\n"


def test_a_message_is_broken_at_spaces_and_what_it_begins_with_has_a_style_of_its_own():
    terminal = Console(file=io.StringIO(), width=30, force_terminal=True, color_system="standard", highlight=False)
    terminal.print(Paragraph(f"error: model.path: {PATH} is not there.", lead=("error:", "bold red")), crop=False)
    assert terminal.file.getvalue() == f"\x1b[1;31merror:\x1b[0m model.path:\n{PATH}\nis not there.\n"


@pytest.fixture
def printed(monkeypatch):
    """Return a function that logs records as the command does, and gives what is printed."""
    pipe = Console(file=io.StringIO(), width=80)
    monkeypatch.setattr(console_module, "log_console", lambda: pipe)
    handler = TerminalHandler("a stream, which Hydra's settings name")
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("pipeline")
    logger.addHandler(handler)
    level = logger.level
    logger.setLevel(logging.INFO)
    yield pipe.file.getvalue
    logger.setLevel(level)
    logger.removeHandler(handler)


def test_a_log_line_begins_with_the_time_a_warning_with_its_level(printed):
    log = logging.getLogger("pipeline.somewhere")
    log.info("quantize took %.1f s", 2)
    log.warning("[bold]markup[/] and /paths/ stay as they are")
    first, second = printed().splitlines()
    assert first[2] == first[5] == ":" and first.endswith(" quantize took 2.0 s")
    assert second == "warning: [bold]markup[/] and /paths/ stay as they are"


def test_what_the_report_tells_is_not_printed_twice(printed, caplog):
    run_log = RunLog()
    run_log.warn("the machine was busy")
    run_log.note("converted from opset 11 to 13")
    run_log.note("converted from opset 11 to 13")
    assert (run_log.warnings, run_log.notes) == (["the machine was busy"], ["converted from opset 11 to 13"])
    assert printed() == ""
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.INFO][:2] == [
        "the machine was busy",
        "converted from opset 11 to 13",
    ]


@pytest.mark.parametrize(
    ("encoding", "written"),
    [
        ("utf-8", "1.19 (0.85–1.44) ≈ ∞ → ★ 模型"),
        ("ascii", "1.19 (0.85-1.44) ~ inf -> * \\u6a21\\u578b"),
        ("gbk", "1.19 (0.85–1.44) ≈ ∞ → ★ 模型"),
        ("latin-1", "1.19 (0.85-1.44) ~ inf -> * \\u6a21\\u578b"),
    ],
)
def test_a_report_can_be_printed_in_any_encoding(monkeypatch, encoding, written):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True)
    monkeypatch.setattr("sys.stdout", stream)
    console_module.result_console().print(Paragraph("1.19 (0.85–1.44) ≈ ∞ → ★ 模型"))
    assert stream.buffer.getvalue().decode(encoding) == f"{written}\n"


def test_the_bytes_of_a_path_in_another_encoding_are_printed_as_they_are(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    monkeypatch.setattr("sys.stdout", stream)
    console_module.result_console().print(Paragraph(b"/data/\xc4\xa3/page".decode("ascii", "surrogateescape")))
    assert stream.buffer.getvalue() == b"/data/\xc4\xa3/page\n"
