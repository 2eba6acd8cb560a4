"""Packs `conf/` and `data/` into the package, so that an installed `speech-quantize` has its settings, models and clips.

All else is in pyproject.toml. An editable install (`pip install -e .`) uses the folders where they are.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

PACKED = Path("pipeline") / "packed"  # where pipeline/paths.py looks for them
FOLDERS = ("conf", "data/models", "data/clips", "data/sentences", "data/voice")  # data/recipes makes them, and is not needed


class BuildWithFolders(build_py):
    """Copies the folders beside the modules of the package."""

    def run(self) -> None:
        """Build, and copy."""
        super().run()
        if self.editable_mode:
            return
        for folder in FOLDERS:
            shutil.copytree(folder, Path(self.build_lib) / PACKED / folder, dirs_exist_ok=True)


setup(cmdclass={"build_py": BuildWithFolders})
