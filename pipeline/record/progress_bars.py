"""Progress of a run: bars on a terminal, gone when they are done; a line every 20 seconds where there is no terminal."""

import logging
import multiprocessing
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.table import Column
from rich.text import Text

from pipeline.record.console import log_console

log = logging.getLogger(__name__)

LINE_SECONDS = 20.0
FIRST_ESTIMATE_S = 2.0  # what was seen before is too little to tell from
BAR_WIDTH = 16  # columns


class ProgressBars:
    """The bars of one run; outside of `with`, nothing is shown."""

    def __init__(self, console: Console | None = None, line_seconds: float = LINE_SECONDS) -> None:
        """Show nothing yet.

        Args:
            console: where bars are drawn; None: standard error, with the logs.
            line_seconds: how long after one line the next one comes, where no bars can be drawn.
        """
        self._console, self._line_seconds = console or log_console(), line_seconds
        wrapping = Column(overflow="fold")  # a narrow terminal breaks lines, and cuts nothing
        columns = (TextColumn("{task.description}", table_column=wrapping), BarColumn(BAR_WIDTH), _HowFar())
        # Drawn seldom: graphs are timed in this process meanwhile.
        self._progress = Progress(*columns, console=self._console, transient=True, refresh_per_second=4)
        self._over = threading.Event()
        self._lines: threading.Thread | None = None

    def __enter__(self) -> "ProgressBars":
        """Begin to draw, or to tell."""
        # Workers of a sweep share one terminal, and would draw over each other.
        alone = multiprocessing.current_process().name == "MainProcess"
        if alone and self._console.is_terminal and not self._console.is_dumb_terminal:
            self._progress.start()
        else:
            self._over.clear()
            self._lines = threading.Thread(target=self._tell, name="progress", daemon=True)
            self._lines.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Remove all bars."""
        if self._progress.live.is_started:
            self._progress.stop()
        self._over.set()
        if self._lines is not None:
            self._lines.join()
            self._lines = None

    @contextmanager
    def bar(self, title: str, total: int | None, unit: str = "samples") -> Iterator[Callable[[], None]]:
        """Show a bar, and give the function that moves it one step on.

        Args:
            title: what is done.
            total: how many steps there are; None: that is not known, and only the time is shown.
            unit: what a step is, in the plural.
        """
        begun = time.monotonic()
        with self._task(title, total=total, unit=unit) as task:
            yield lambda: self._progress.update(task, advance=1, moved_at=time.monotonic() - begun)

    @contextmanager
    def status(self, title: str, limit_seconds: float | None = None) -> Iterator[Callable[[str], None]]:
        """Show what is done now, and give the function that changes the text behind the title.

        Args:
            title: what is done.
            limit_seconds: after which it is ended; None: no limit is known.
        """
        with self._task(title, limit_seconds=limit_seconds) as task:
            yield lambda line: self._progress.update(task, description=f"{title}: {line}")

    @contextmanager
    def megabytes(self, title: str) -> Iterator[Callable[[int, int | None], None]]:
        """Show how much of a download is done, and give the function that is told (bytes so far, bytes in all)."""
        with self._task(title, unit="MB") as task:
            yield lambda done, total: self._progress.update(
                task, completed=done // 1_000_000, total=total and total // 1_000_000
            )

    @contextmanager
    def _task(self, title: str, total: int | None = None, **fields: Any) -> Iterator[TaskID]:  # noqa: ANN401
        """Show a task, in the place of the one that it is a part of."""
        wider = [task.id for task in self._progress.tasks if task.visible]
        for other in wider:
            self._progress.update(other, visible=False)
        task = self._progress.add_task(title, total=total, **fields)
        try:
            yield task
        finally:
            self._progress.remove_task(task)
            for other in wider:
                self._progress.update(other, visible=True)

    def _tell(self) -> None:
        """Log what is done now, again and again."""
        while not self._over.wait(self._line_seconds):
            if tasks := self._progress.tasks:  # the last one is the innermost
                log.info("%s: %s", tasks[-1].description, how_far(tasks[-1]))


class _HowFar(ProgressColumn):
    def render(self, task: Task) -> Text:
        share = "" if task.total is None else f"{task.percentage:.0f} %, "
        return Text(share + how_far(task))


def how_far(task: Task) -> str:
    """Return how far a task is and how long it will take: `12 of 50 samples, about 40 s left`."""
    elapsed = task.elapsed or 0.0
    if task.total is None:
        limit = task.fields.get("limit_seconds")
        done = f"{task.completed:.0f} {task.fields['unit']}, " if task.completed else ""
        return done + duration(elapsed) + _beside(limit, elapsed)
    done = f"{task.completed:.0f} of {task.total:.0f} {task.fields['unit']}"
    if not task.completed or elapsed < FIRST_ESTIMATE_S or task.completed >= task.total:
        return done
    moved_at = task.fields.get("moved_at", elapsed)  # when the last step was done
    left = moved_at / task.completed * (task.total - task.completed) - (elapsed - moved_at)
    if left < 0:
        return f"{done}, {duration(elapsed)}; the next takes longer than those before"
    return f"{done}, about {duration(left)} left"


def _beside(limit: float | None, elapsed: float) -> str:
    if limit is None:
        return ""
    return f" of at most {duration(limit)}" if elapsed <= limit else f", past the limit of {duration(limit)}"


def duration(seconds: float) -> str:
    """Return a time in the unit that suits it: `40 s`, `12 min`, `1 h 05 min`."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60.0)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02} min"
