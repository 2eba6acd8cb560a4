"""The structure of pipeline/: imports go one way, without circles; files are short, and each has a name of its own.

Imports are read from the source, so those inside functions and under TYPE_CHECKING count as well.
"""

import ast
import graphlib
import re
from collections import Counter
from pathlib import Path

import pytest

import pipeline

PACKAGE = Path(pipeline.__file__).resolve().parent
MOST_LINES = 400


def modules_of(package):
    """Return the modules of a package: dotted name -> file."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports_of(modules):
    """Return what each module imports of the same package: dotted name -> dotted names."""
    found = {}
    for name, path in modules.items():
        found[name] = set()
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                targets = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
                origin = ".".join([*parents, *([node.module] if node.module else [])])
                targets = [f"{origin}.{alias.name}" for alias in node.names]
            else:
                continue
            for target in targets:  # a name that a module defines stands for the module
                module = target if target in modules else target.rpartition(".")[0]
                found[name] |= {module} & set(modules) - {name}
    return found


def place_of(module):
    """Return the package of pipeline/ that a module belongs to; a file on the top level is one of its own."""
    return ".".join(module.split(".")[:2])


def folder_inside(module):
    """Return the folder inside of a package that a module belongs to; a file beside such folders is one of its own."""
    return ".".join(module.split(".")[:3])


def between(imports, group_of):
    """Return imports between groups of modules: group -> groups."""
    found = {}
    for module, targets in imports.items():
        found.setdefault(group_of(module), set()).update({group_of(target) for target in targets} - {group_of(module)})
    return found


def long_files(modules):
    """Return the files with more lines than are allowed: name -> lines."""
    lines = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in modules.items()}
    return {name: count for name, count in lines.items() if count > MOST_LINES}


def names_given_twice(modules):
    """Return the names of files that two folders have."""
    names = Counter(path.name for path in modules.values() if path.name != "__init__.py")
    return [name for name, count in names.items() if count > 1]


def circle_in(imports):
    """Return a circle of imports as text, or an empty one."""
    try:
        graphlib.TopologicalSorter(imports).prepare()
    except graphlib.CycleError as error:
        return " -> ".join(reversed(error.args[1]))
    return ""


def order_in(docstring):
    """Return the places that the list in the package's docstring names, from the top."""
    names = re.findall(r"^    (\w+)(/|\.py) {2,}\S", docstring, flags=re.MULTILINE)
    return [f"pipeline.{name}" for name, _ in names]


def against_the_order(imports, order, package="pipeline"):
    """Return the imports of places that stand further down, as text."""
    rank = {place: number for number, place in enumerate(order)}
    rank[package] = len(order)  # its own __init__.py, which offers the last of the list
    return sorted(
        f"{module} imports {target}"
        for module, targets in imports.items()
        for target in targets
        if rank[place_of(module)] < rank[place_of(target)]
    )


@pytest.fixture(scope="module")
def modules():
    """Return the modules of pipeline/."""
    return modules_of(PACKAGE)


@pytest.fixture(scope="module")
def imports(modules):
    """Return what each module of pipeline/ imports of it."""
    return imports_of(modules)


def test_the_list_names_every_package_and_file_of_the_top_level_once(modules):
    places = {place_of(module) for module in modules} - {"pipeline"}
    assert sorted(order_in(pipeline.__doc__)) == sorted(places)


def test_no_import_goes_down_the_list(imports):
    assert against_the_order(imports, order_in(pipeline.__doc__)) == []


def test_no_files_import_each_other_in_a_circle(imports):
    assert circle_in(imports) == ""


def test_no_packages_import_each_other_in_a_circle(imports):
    assert circle_in(between(imports, place_of)) == ""


def test_no_folders_inside_of_a_package_import_each_other_in_a_circle(imports):
    assert circle_in(between(imports, folder_inside)) == ""


def test_no_file_is_longer_than_400_lines(modules):
    assert long_files(modules) == {}


def test_every_file_has_a_name_of_its_own(modules):
    assert names_given_twice(modules) == []


# What the tests above find, on a package that is written here: fine as it is, and with one change each time.

LIST = """A package.

    errors.py   what all use
    low/        below, and further up in this list
    high/       above
    top.py      the command

Imports go up.
"""
FINE = {
    "__init__.py": "",
    "errors.py": "class E(Exception): ...",
    "low/__init__.py": "",
    "low/first.py": "from pack.errors import E",
    "low/second.py": "import pack.low.first",
    "low/inner/__init__.py": "",
    "low/inner/third.py": "from ..second import x",
    "low/outer/__init__.py": "",
    "low/outer/fourth.py": "from pack.low.inner.third import x",
    "high/__init__.py": "",
    "high/fifth.py": "def f():\n    from pack import low\n    from pack.low import first",
    "top.py": "from pack.high.fifth import f",
}


@pytest.fixture
def found_in(tmp_path):
    """Return a function: sources that replace some of FINE -> what is wrong with the package, by check."""

    def check(**changes):
        files = FINE | {name.replace("__", "/") + ".py": source for name, source in changes.items()}
        for name, source in files.items():
            path = tmp_path / "pack" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(source, encoding="utf-8")
        modules = modules_of(tmp_path / "pack")
        imports = imports_of(modules)
        found = {
            "order": against_the_order(imports, [place.replace("pipeline", "pack") for place in order_in(LIST)], "pack"),
            "files": circle_in(imports),
            "packages": circle_in(between(imports, place_of)),
            "folders": circle_in(between(imports, folder_inside)),
            "lines": long_files(modules),
            "names": names_given_twice(modules),
        }
        return {check for check, problems in found.items() if problems}

    return check


def test_a_package_that_keeps_to_the_rules_is_fine(found_in):
    assert order_in(LIST) == ["pipeline.errors", "pipeline.low", "pipeline.high", "pipeline.top"]
    assert found_in() == set()


@pytest.mark.parametrize(
    "source",
    [
        "from pack.high.fifth import f",
        "import pack.high.fifth",
        "from pack.high import fifth",
        "from ..high.fifth import f",
        "from .. import high",
        "def f():\n    from pack.high.fifth import f",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from pack.high.fifth import f",
    ],
)
def test_an_import_of_what_stands_further_down_is_found_however_it_is_written(found_in, source):
    assert {"order", "packages"} <= found_in(low__first=source)


def test_an_import_of_a_file_further_down_is_found_without_any_circle(found_in):
    assert found_in(top="", high__fifth="import pack.top") == {"order"}


def test_files_of_one_package_that_import_each_other_are_found(found_in):
    assert found_in(low__first="from pack.low import second") == {"files", "folders"}


def test_folders_inside_of_a_package_that_import_each_other_are_found_though_no_files_do(found_in):
    assert found_in(low__inner__sixth="from pack.low.outer import fourth") == {"folders"}


def test_a_long_file_is_found(found_in):
    assert found_in(low__first="x = 1\n" * MOST_LINES) == set()
    assert found_in(low__first="x = 1\n" * (MOST_LINES + 1)) == {"lines"}


def test_a_name_that_stands_twice_is_found(found_in):
    assert found_in(high__first="") == {"names"}
