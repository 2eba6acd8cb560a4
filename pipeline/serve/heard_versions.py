"""What can be compared by ear: the versions of a run's samples, and the samples that two versions have in common."""

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from pipeline.evaluate.changed_audio import BASELINE, RECORDING
from pipeline.record.run_directory import SAMPLES
from pipeline.serve.served_files import is_inside, is_plain

MOST_FILES = 20_000  # that are looked at


@dataclass(frozen=True)
class Version:
    """One version of a run's samples: fp32, recording, or what the quantized model is called in the names of its files.

    Attributes:
        run: its directory, relative to the served one.
        kind: fp32, recording, or the label of the quantized files, such as int8.
        files: sample -> file, relative to the served directory.
    """

    run: str
    kind: str
    files: dict[str, str]

    @property
    def id(self) -> str:
        """Its name in addresses and scores."""
        return f"{self.run}/{self.kind}"


def versions_below(root: Path) -> dict[str, Version]:
    """Return the versions of all runs below a directory, the newest run first, fp32 before the others: id -> version."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    for number, path in enumerate(root.glob(f"*/*/*/{SAMPLES}/*.wav")):
        if number == MOST_FILES:
            break
        names = path.relative_to(root).parts
        sample, _, kind = path.stem.rpartition(".")
        if sample and kind and all(map(is_plain, names)) and is_inside(root, names):
            found.setdefault(("/".join(names[:3]), kind), {})[sample] = "/".join(names)
    order = sorted(found, key=lambda key: _place(key[1]))
    order.sort(key=lambda key: (key[0].rpartition("/")[2], key[0]), reverse=True)
    versions = (Version(run, kind, dict(sorted(found[run, kind].items()))) for run, kind in order)
    return {version.id: version for version in versions}


def _place(kind: str) -> tuple[int, str]:
    return {BASELINE: 0, RECORDING: 2}.get(kind, 1), kind


def pairs_of(first: Version, second: Version) -> list[tuple[str, str, str]]:
    """Return (sample, address of the first version's file, of the second's), of the samples that both have."""
    return [
        (sample, f"/{quote(first.files[sample])}", f"/{quote(second.files[sample])}")
        for sample in first.files
        if sample in second.files
    ]


def chosen(versions: dict[str, Version], first: str | None, second: str | None) -> tuple[Version, Version] | None:
    """Return the two versions that are named, or those of the newest run, fp32 and quantized; None: there are no two."""
    if first in versions and second in versions and first is not None and second is not None:
        return versions[first], versions[second]
    for one in versions.values():
        for other in versions.values():
            if one.run == other.run and one.kind == BASELINE and other.kind not in (BASELINE, RECORDING):
                return one, other
    return None
