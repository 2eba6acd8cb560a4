"""index.html, the page of all runs below a directory: written by command, and again after every run."""

import logging
from pathlib import Path

from pipeline.errors import ConfigError
from pipeline.record.run_directory import REPORT_FILE
from pipeline.report.run_index import read_index, replace_text

log = logging.getLogger(__name__)

PAGE_FILE = "index.html"
OUTPUTS = "outputs"  # the directory that gets an index by itself
MOST_NEW = 60  # that one refresh after a run reads: it must not take long after an update with many past runs


def write_index(root: Path, language: str, most_new: int | None = None) -> Path:
    """Write index.html into a directory of runs, and return its path.

    Args:
        root: the directory.
        language: of the page.
        most_new: how many reports are read at most that were not read before; None: all.

    Raises:
        ConfigError: it is not a directory, or no run lies in it.
    """
    from pipeline.report.html.index_page import index_page
    from pipeline.report.html.language import in_language

    if not root.is_dir():
        raise ConfigError(f"index: {root} is not a directory. Give one that runs lie in: index={OUTPUTS}.")
    index = read_index(root, most_new)
    if not index.count:
        raise ConfigError(
            f"index: no run lies in {root}: no {REPORT_FILE} in <model>/<mode>/<timestamp>. Give one that runs lie in: "
            f"index={OUTPUTS}."
        )
    with in_language(language):
        replace_text(root / PAGE_FILE, index_page(index, root))
    return root / PAGE_FILE


def refresh_index(run: Path, language: str) -> Path | None:
    """Make the index of the outputs directory that a run lies in again; return its path, None where there is none.

    It is a view of what is on the disk: where it cannot be written, the run is done nevertheless, and a warning says so.
    """
    root = next((folder for folder in list(run.absolute().parents)[:4] if folder.name == OUTPUTS), None)
    if root is None:
        return None
    try:
        return write_index(root, language, MOST_NEW)
    except Exception as error:  # whatever is wrong with other runs: no fault of theirs may end one that has done its work
        log.debug("the index of %s", root, exc_info=True)
        known = isinstance(error, OSError | ConfigError)
        log.warning("%s was not written: %s", root / PAGE_FILE, error if known else f"{type(error).__name__}: {error}")
        return None
