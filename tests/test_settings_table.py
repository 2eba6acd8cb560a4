"""Help, README and docs/settings.md say what the code does: they are made from one place, and complete."""

import dataclasses
import re

import pytest
from omegaconf import OmegaConf

from pipeline.config.help_text import GROUPS, help_text, options_of
from pipeline.config.mode_settings import MODE_SCHEMAS
from pipeline.config.setting_docs import documented
from pipeline.config.settings import BenchmarkConfig, CalibrationConfig, EvaluationConfig, RunSchema
from pipeline.config.settings_table import SET_BY_OPTION, main, settings_page, with_readme_table

SCHEMAS = {
    **{kind.name: schema for kind, schema in MODE_SCHEMAS.items()},
    "calibration": CalibrationConfig,
    "evaluation": EvaluationConfig,
    "benchmark": BenchmarkConfig,
    "the top level": RunSchema,
}
STALE = "is out of date: python -m pipeline.config.settings_table --write"


def test_the_documentation_is_up_to_date(repo):
    assert (repo / "docs" / "settings.md").read_text(encoding="utf-8") == settings_page(), f"docs/settings.md {STALE}"
    readme = (repo / "README.md").read_text(encoding="utf-8")
    assert readme == with_readme_table(readme), f"README.md {STALE}"


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_setting_is_described(name):
    described = documented(SCHEMAS[name])
    missing = [entry.name for entry in dataclasses.fields(SCHEMAS[name]) if entry.name not in (*described, *GROUPS)]
    sections = [entry.name for entry in dataclasses.fields(SCHEMAS[name]) if dataclasses.is_dataclass(entry.type)]
    assert [setting for setting in missing if setting not in sections] == []


@pytest.mark.parametrize("group", GROUPS)
def test_every_option_says_in_its_first_line_what_it_is(group):
    options = options_of(group)
    assert options
    for option, what in options.items():
        assert what, f"conf/{group}/{option}.yaml does not begin with a comment that says what it is"
        assert len(what) <= 100


def test_no_default_stands_in_two_places(repo):
    """A file of `conf/` sets what makes its option differ; what it would repeat is the default of the class."""
    for group, schema in (("calibration", CalibrationConfig), ("evaluation", EvaluationConfig), ("benchmark", BenchmarkConfig)):
        for option in options_of(group):
            repeated(repo, group, option, schema)
    for option in options_of("mode"):
        kind = OmegaConf.load(repo / "conf" / "mode" / f"{option}.yaml").kind
        repeated(repo, "mode", option, {kind.name: schema for kind, schema in MODE_SCHEMAS.items()}[kind])


def repeated(repo, group, option, schema):
    """Complain about a value of a file that its class has as well."""
    given = OmegaConf.to_container(OmegaConf.load(repo / "conf" / group / f"{option}.yaml"))
    default = OmegaConf.to_container(OmegaConf.structured(schema))
    same = [key for key in given if key in default and key not in SET_BY_OPTION and given[key] == default[key]]
    assert same == [], f"conf/{group}/{option}.yaml repeats {same}"


def test_the_page_gives_values_default_and_meaning_of_a_setting():
    page = settings_page()
    assert "| `mode.min_channels` | integer | 16 | Conv of fewer input or output channels than this stay fp32" in page
    assert "| `mode.format` | qdq, qoperator | qdq |" in page
    assert "| `mode.reduce_range` | true, false, null | null |" in page
    assert "| `benchmark.runs` | integer | full: 200; quick: 20 |" in page
    assert "| `model.noise_scale` | number | 0.667 |" in page
    assert "| `model.hop_length` | integer | 256 |" in page


def test_a_setting_of_a_model_is_given_with_and_without_a_plus_whether_it_is_in_its_file_or_not(run_quickly):
    for plus in ("", "+", "++"):  # it is not in its file, where Hydra wants a plus
        assert (
            "hop_length: 300" in run_quickly("model=matcha", f"{plus}model.hop_length=300", "--cfg", "job").succeeded().stdout
        )
        assert "noise_scale: 0.5" in run_quickly("model=matcha", f"{plus}model.noise_scale=0.5", "--cfg", "job").stdout


def test_the_help_names_the_command_that_was_called():
    assert "python run.py model=matcha" in help_text("python run.py")
    assert "run.py" not in help_text("speech-quantize")


@pytest.mark.parametrize("width", [40, 60, 80, 118])
def test_the_help_fits_a_terminal_of_any_width_and_cuts_no_name(width):
    text = help_text("python run.py", width)
    assert [
        line for line in text.splitlines()[1:] if len(line) > width and len(line.split()) > 1 and "python " not in line
    ] == []
    words = set(help_text("python run.py", 1000).split())
    assert set(text.split()) == words


def test_the_help_is_as_wide_as_the_terminal(monkeypatch):
    for columns in (60, 80, 118):
        monkeypatch.setenv("COLUMNS", str(columns))
        assert help_text("python run.py") == help_text("python run.py", columns)


def test_the_help_describes_the_settings_beside_the_groups():
    for name in ("stages", "seed", "rerun", "compare", "sort_by", "optimize_for"):
        assert re.search(rf"^  {name} +\S", help_text("python run.py", 118), flags=re.MULTILINE)


def test_another_option_of_the_generator_is_refused(capsys):
    assert main(["--wirte"]) == 2
    assert "--write" in capsys.readouterr().err
