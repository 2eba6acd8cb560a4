"""Run run.py many times without importing its libraries each time: a process that has them, and forks for every command.

The tests of bad input run the command more than a hundred times; nine tenths of such a run would be imports. Each command
still has a process of its own, with its own arguments, working directory, environment, output and exit status.
Its children are copies as well, where that is the same for them (copied_children.py).
Reads a JSON object per line (argv, folder, environment, pictures, copies, stdout, stderr) and answers with exit statuses;
one with `background` with its process, whose exit status `wait` asks for.
"""

import copy
import gc
import importlib
import json
import os
import runpy
import sys
import tempfile
import traceback
from pathlib import Path

from copied_children import copy_for_children
from hydra.core.plugins import Plugins
from hydra.core.singleton import Singleton

SCRIPT = Path(__file__).resolve().parent.parent / "run.py"
PACKAGE = SCRIPT.parent / "pipeline"
LIBRARIES = (
    "hydra.main", "onnxruntime.quantization", "onnxruntime.transformers.float16", "matplotlib.backends.backend_svg",
    "scipy.special", "scipy.signal", "scipy.fft", "scipy.spatial.distance", "scipy.stats", "kaldi_native_fbank", "PIL.Image",
    "matplotlib.figure", "jiwer", "numba",
    *(
        f"pipeline.{'.'.join(path.relative_to(PACKAGE).with_suffix('').parts)}"
        for path in sorted(PACKAGE.rglob("[a-z]*.py"))
        if "reconstruction" not in path.parts  # PyTorch need not be installed
    ),
)  # fmt: skip
OVERRIDES = ["model=onnx", "-m", "+a.b=[1,x_y]", "mode.c=1.5", "a='b c'", "a={b:c}"]  # as commands give them


def warm_up() -> None:
    """Do once what every command would do for itself: schemas, templates, and parsers that learn their grammar as they go."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from omegaconf import OmegaConf

    from pipeline.calibration.numba_jit import Compiled
    from pipeline.config.compose import register_schemas
    from pipeline.report.html.render import TEMPLATES, environment_of

    for module in [module for name, module in sys.modules.items() if name.startswith("pipeline.calibration.")]:
        for value in list(vars(module).values()):
            if isinstance(value, Compiled):
                value.compile()
    register_schemas()
    for language in ("en", "zh"):
        for template in TEMPLATES.glob("*.j2"):
            environment_of(language).get_template(template.name)
    remember_options()
    parser = OverridesParser.create()
    for override in OVERRIDES:
        if not override.startswith("-"):
            parser.parse_override(override)
    settings = OmegaConf.create({"a": {"b": "${now:%Y-%m-%d}/${c}_x", "d": "${oc.env:HOME,''}"}, "c": "${e:${a.d},[1,2]}"})
    OmegaConf.to_yaml(settings)
    assert settings._get_node("c")._is_interpolation()


def remember_options() -> None:
    """Read the options that the pipeline and Hydra come with; a command gets a copy of each that it asks for."""
    import hydra
    from omegaconf import OmegaConf

    read = OmegaConf.load
    places = (SCRIPT.parent / "conf", Path(hydra.__file__).parent / "conf")
    known = {str(path): read(path) for place in places for path in place.rglob("*.yaml")}

    def load(file):
        found = known.get(getattr(file, "name", ""))
        return read(file) if found is None else copy.deepcopy(found)

    OmegaConf.load = staticmethod(load)


def serve() -> None:
    """Answer commands until standard input is closed."""
    for library in LIBRARIES:
        importlib.import_module(library)
    from pipeline.hydra_hooks import register

    register()  # with the place of its own plugins
    Plugins.instance()  # Hydra looks through all of its modules for them
    warm_up()
    gc.collect()
    gc.freeze()  # what is here now is not looked through, and so not copied, by every child

    for line in sys.stdin:
        command = json.loads(line)
        child = command["wait"] if "wait" in command else os.fork()
        if child == 0:
            become(command)
        if "background" in command:
            print(child, flush=True)
            continue
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def become(command: dict) -> None:
    """Be one command, in this process, and end as an interpreter would."""
    for name, descriptor in (("stdin", 0), ("stdout", 1), ("stderr", 2)):
        path = os.devnull if name == "stdin" else command[name]
        os.dup2(os.open(path, os.O_RDONLY if name == "stdin" else os.O_WRONLY | os.O_CREAT), descriptor)
    os.chdir(command["folder"])
    os.environ.clear()
    os.environ.update(command["environment"])
    tempfile.tempdir = None
    if added := [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path and path not in sys.path]:
        sys.path[:0] = added
        Singleton._instances.pop(Plugins)  # Hydra looks for plugins there, too
    if not command[
        "pictures"
    ]:  # the page gives them as text, as without matplotlib: a second less, for tests of something else
        from pipeline.report.html import svg

        svg.can_draw = lambda: False
    if command["copies"]:
        copy_for_children()
    sys.argv = [str(SCRIPT), *command["argv"]]
    code = 0
    try:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    sys.path.insert(0, str(SCRIPT.parent))
    serve()
