"""Progress of a run: bars that are gone when they are done, and are drawn on a terminal only."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


class ProgressBars:
    """The bars of one run; outside of `with`, nothing is drawn."""

    def __init__(self) -> None:
        """Draw nothing yet."""
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._progress = Progress(*columns, transient=True)

    def __enter__(self) -> "ProgressBars":
        """Begin to draw."""
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Remove all bars."""
        self._progress.stop()

    @contextmanager
    def bar(self, title: str, total: int | None) -> Iterator[Callable[[], None]]:
        """Show a bar, and give the function that moves it one step on."""
        task = self._progress.add_task(title, total=total)
        try:
            yield lambda: self._progress.advance(task)
        finally:
            self._progress.remove_task(task)

    @contextmanager
    def status(self, title: str) -> Iterator[Callable[[str], None]]:
        """Show what is done now, and give the function that changes the text behind the title."""
        task = self._progress.add_task(title, total=None)
        try:
            yield lambda line: self._progress.update(task, description=f"{title}: {line}")
        finally:
            self._progress.remove_task(task)

    @contextmanager
    def megabytes(self, title: str) -> Iterator[Callable[[int, int | None], None]]:
        """Show how much of a download is done, and give the function that is told (bytes so far, bytes in all)."""
        task = self._progress.add_task(f"{title}, MB", total=None)
        try:
            yield lambda done, total: self._progress.update(
                task, completed=done // 1_000_000, total=total and total // 1_000_000
            )
        finally:
            self._progress.remove_task(task)
