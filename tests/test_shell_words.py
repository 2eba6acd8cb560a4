"""Commands as they are pasted into a shell."""

import subprocess

import pytest

from pipeline.shell_words import shell_line, shell_word

WORDS = [
    "mode.nodes_to_exclude=['/conv_pre/Conv','/resblocks.3.1/convs1.0/Conv']", "model.path=/模型 (1).onnx", "it's $HOME",
    "a'b`date`", "'\"'", "back\\slash's", "{sr: 16000}", "plain=1", "", "wow! it's",
]  # fmt: skip


def test_a_shell_gets_the_words_unchanged():
    printed = subprocess.run(["bash", "-c", rf"printf '%s\n' {shell_line(WORDS)}"], capture_output=True, text=True, check=True)
    assert printed.stdout.splitlines() == WORDS


@pytest.mark.parametrize(
    ("word", "shown"),
    [
        ("mode=static", "mode=static"),
        ("stages=[load]", "'stages=[load]'"),
        ("mode.nodes_to_exclude=['/a (1)','/b']", "\"mode.nodes_to_exclude=['/a (1)','/b']\""),
    ],
)
def test_a_word_is_in_the_quotes_that_are_easiest_to_read(word, shown):
    assert shell_word(word) == shown
