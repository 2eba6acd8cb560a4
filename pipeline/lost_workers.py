"""A launcher whose workers may be killed: what they leave is run again, and one job does not take a sweep with it.

joblib ends a sweep when one of its workers is killed, submitit when a job has ended without a result, Ray when it has tried
often enough. What a sweep has come to lies in its directory, and a job that has begun before goes on there: so the launcher is
asked again. Jobs that had begun, one of which has killed its worker, run one at a time, and the rest together.
"""

import logging
import re
from collections.abc import Collection, Sequence
from concurrent.futures import BrokenExecutor
from pathlib import Path

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher

from pipeline.record.console import say
from pipeline.record.report_end import mark_failed
from pipeline.record.sweep_record import INTERRUPTED, jobs_of, note_job
from pipeline.report.unfinished import has_failed_itself

log = logging.getLogger("pipeline.sweep")

LAUNCHERS = ("submitit", "ray")  # whose errors say that a job has ended without a result
TRIES_IN_VAIN = 2  # after which the launcher has what it says
LOST = (
    "its process was killed twice, by lack of memory or by a signal. resume=<the sweep> resume_failed=true tries it again, "
    "with fewer workers if memory was the cause."
)


def is_loss(error: BaseException) -> bool:
    """Say whether an error of a launcher says that a worker was lost."""
    return isinstance(error, BrokenExecutor) or type(error).__module__.partition(".")[0] in LAUNCHERS


def loss_in_words(error: BaseException) -> str:
    """Return the last line of what a launcher says, which is often a whole traceback of another process."""
    lines = [line.strip() for line in str(error).splitlines() if re.search(r"\w", line)]
    return f"{type(error).__name__}: {lines[-1][:300] if lines else 'nothing'}"


class PatientLauncher:
    """Asks a launcher again for the jobs that were lost."""

    def __init__(self, launcher: Launcher, sweep: Path) -> None:
        """Take the launcher, and the directory of the sweep."""
        self._launcher, self._sweep = launcher, sweep

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run jobs, as `Launcher.launch`; each of them has ended then, and its directory says how.

        Raises:
            Exception: of the launcher, where it cannot run a single job.
        """
        overrides = dict(enumerate(map(list, job_overrides), initial_job_idx))
        results = {number: JobReturn(status=JobStatus.COMPLETED) for number in overrides}  # of a job that was lost, nothing
        left, in_vain = list(overrides), 0
        while left:
            group = _first_in_a_row(left)  # a launcher numbers its jobs one after the other
            before = len(self._ended(overrides))
            try:
                found = self._launcher.launch([overrides[number] for number in group], group[0])
                results |= dict(zip(group, found, strict=True))
                left = left[len(group) :]
            except Exception as error:
                if not is_loss(error):
                    raise
                suspects = self._begun(group)
                say(
                    "a worker of the launcher was lost, killed by lack of memory or by a signal; the sweep goes on, with "
                    f"{', '.join(f'#{number}' for number in suspects) or 'its jobs'} first.",
                    "yellow",
                )
                log.info("the launcher says: %s", loss_in_words(error))
                for number in suspects:
                    results |= self._alone(overrides[number], number)
                ended = self._ended(overrides)
                left = [number for number in left if number not in ended]
                in_vain = in_vain + 1 if len(ended) == before else 0
                if in_vain == TRIES_IN_VAIN:
                    raise
        return list(results.values())

    def _alone(self, overrides: list[str], number: int) -> dict[int, JobReturn]:
        """Run a job by itself; where its worker is lost again, it has failed. Return its result, if there is one."""
        try:
            return dict(zip([number], self._launcher.launch([overrides], number), strict=True))
        except Exception as error:
            if not is_loss(error):
                raise
            for job in jobs_of(self._sweep):
                if job.number == number:
                    note_job(self._sweep, number, job.directory, LOST)
                    mark_failed(job.directory, LOST)
            return {}

    def _ended(self, numbers: Collection[int]) -> list[int]:
        """Return the jobs that are done or have failed."""
        return [
            job.number
            for job in jobs_of(self._sweep)
            if job.number in numbers
            and (job.error is None or job.noted not in (None, INTERRUPTED) or has_failed_itself(job.directory))
        ]

    def _begun(self, numbers: Collection[int]) -> list[int]:
        """Return the jobs that have begun, and not ended."""
        ended = self._ended(numbers)
        return [job.number for job in jobs_of(self._sweep) if job.number in numbers and job.number not in ended]


def _first_in_a_row(numbers: Sequence[int]) -> list[int]:
    """Return the numbers at the beginning that follow each other."""
    count = next((place for place, number in enumerate(numbers) if number != numbers[0] + place), len(numbers))
    return list(numbers[:count])
