"""Run run.py as where libraries are not installed: `python without_libraries.py numba,matplotlib model=vocoder mode=static`."""

import runpy
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parent.parent / "run.py"

if __name__ == "__main__":
    for library in filter(None, sys.argv[1].split(",")):
        sys.modules[library] = None  # importing it raises ImportError, and importlib finds none
    sys.argv = [str(SCRIPT), *sys.argv[2:]]
    sys.path[0] = str(SCRIPT.parent)
    runpy.run_path(str(SCRIPT), run_name="__main__")
