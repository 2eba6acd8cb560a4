"""The commands of the READMEs: they compose as printed, and both languages give the same ones."""

import re
import shlex

import pytest

from tests.conftest import REPO

ENGLISH, CHINESE = "README.md", "README.zh.md"
ELSEWHERE = ("compare=", "rerun=", "run=", "index=", "--calib", "doctor", "serve", "cache", "<", "--help", "--shell-completion")
"""What needs runs or files that are not there, and what other tests try."""


def commands(name):
    """Return the commands of a README that call the program, without their comments."""
    text = (REPO / name).read_text(encoding="utf-8")
    blocks = "".join(re.findall(r"```bash\n(.*?)```", text, flags=re.DOTALL)).replace("\\\n", " ")
    lines = [re.sub(r"\s+#\s.*", "", line) for line in blocks.splitlines()]
    return [line for line in lines if "run.py" in line]


def settings_of(line):
    """Return the words of a command, the values of its paths left out: placeholders have names in either language."""
    return re.sub(r"(<[^>]*>|[^\s=]*/(?=\s|$))", "...", re.sub(r"\s+", " ", line))


COMPOSED = [
    line for line in commands(ENGLISH) if line.startswith("python run.py") and not any(part in line for part in ELSEWHERE)
]


def test_both_languages_give_the_same_commands():
    assert sorted(map(settings_of, commands(ENGLISH))) == sorted(map(settings_of, commands(CHINESE)))


@pytest.mark.parametrize("line", COMPOSED)
def test_a_command_of_the_readme_composes_as_it_is_printed(run_quickly, line):
    words = [word for word in shlex.split(line.removeprefix("python run.py")) if word != "-m"]
    settings = [re.sub(r"^(model|mode)=([^,]+),.*", r"\1=\2", word) for word in words]  # of a sweep the first job
    assert "evaluation:" in run_quickly(*settings, "--cfg", "job").succeeded().stdout


@pytest.mark.parametrize("name", [ENGLISH, CHINESE])
def test_a_readme_links_to_files_that_are_there(name):
    text = (REPO / name).read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)", text) if not link.startswith("http")]
    assert links
    assert [link for link in links if not (REPO / link).exists()] == []
    assert text.count("<details>") == text.count("</details>")
