"""Scores of comparisons by ear, kept in the served directory as JSON."""

import json
import math
import time
from pathlib import Path
from typing import Any

from pipeline.record.run_directory import write_text
from pipeline.serve.heard_versions import Version

SCORES_FILE = "listening_scores.json"
SCORES_VERSION = 1
MOST_ROUNDS = 100  # of a series
MOST_SERIES = 10_000
MOST_BYTES = 16 << 20  # of the file
ANSWERS = ("a", "b")


class ScoreError(Exception):
    """What was sent is no score of a comparison that can be made here."""


def guessing_probability(right: int, rounds: int) -> float:
    """Return the probability of at least so many right answers by guessing: a binomial tail with p = 1/2."""
    ways: int = sum(math.comb(rounds, k) for k in range(right, rounds + 1))
    return float(ways / 2**rounds)


def series_of(sent: object, versions: dict[str, Version]) -> dict[str, Any]:
    """Return the series that a page has sent, its score counted here.

    Args:
        sent: `{"a": id, "b": id, "rounds": [{"sample": name, "x": "a" or "b", "answer": "a" or "b"}, ...]}`.
        versions: what can be heard.

    Raises:
        ScoreError: it is anything else.
    """
    if not isinstance(sent, dict) or set(sent) != {"a", "b", "rounds"} or not isinstance(sent["rounds"], list):
        raise ScoreError("a score is an object with the keys a, b and rounds")
    if not all(isinstance(sent[key], str) and sent[key] in versions for key in ANSWERS):
        raise ScoreError("a and b are not versions of runs that are here")
    if not 1 <= len(sent["rounds"]) <= MOST_ROUNDS:
        raise ScoreError(f"a series has 1 to {MOST_ROUNDS} rounds")
    common = set(versions[sent["a"]].files) & set(versions[sent["b"]].files)
    for entry in sent["rounds"]:
        if not isinstance(entry, dict) or set(entry) != {"sample", "x", "answer"}:
            raise ScoreError("a round is an object with the keys sample, x and answer")
        if not isinstance(entry["sample"], str) or entry["sample"] not in common:
            raise ScoreError("a round has a sample that the two versions do not share")
        if entry["x"] not in ANSWERS or entry["answer"] not in ANSWERS:
            raise ScoreError("x and answer are a or b")
    right = sum(entry["x"] == entry["answer"] for entry in sent["rounds"])
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "a": sent["a"],
        "b": sent["b"],
        "right": right,
        "of": len(sent["rounds"]),
        "guessing_probability": guessing_probability(right, len(sent["rounds"])),
        "rounds": sent["rounds"],
    }


def read_scores(root: Path) -> list[dict[str, Any]]:
    """Return the series that are kept in a directory, the oldest first; none where there is no such file.

    Raises:
        ScoreError: the file is damaged, too large, or a link: nothing is written over it.
    """
    path = root / SCORES_FILE
    if path.is_symlink():
        raise ScoreError(f"{SCORES_FILE} is a link")
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ScoreError(f"{SCORES_FILE} has more than {MOST_BYTES >> 20} MiB")
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    except (OSError, ValueError, RecursionError) as error:
        raise ScoreError(f"{SCORES_FILE} cannot be read") from error
    if not isinstance(value, dict) or value.get("version") != SCORES_VERSION or not isinstance(value.get("series"), list):
        raise ScoreError(f"{SCORES_FILE} is of another version")
    if not all(map(_is_series, value["series"])):
        raise ScoreError(f"{SCORES_FILE} holds something that is no series")
    series: list[dict[str, Any]] = value["series"]
    return series


def _is_series(value: object) -> bool:
    if not isinstance(value, dict) or not all(isinstance(value.get(key), str) for key in ("time", "a", "b")):
        return False
    right, rounds = value.get("right"), value.get("of")
    return type(right) is int and type(rounds) is int and 0 <= right <= rounds <= MOST_ROUNDS and rounds > 0


def keep(root: Path, series: dict[str, Any]) -> None:
    """Add a series to the file.

    Raises:
        OSError: the directory cannot be written.
        ScoreError: the file is damaged, or full.
    """
    known = read_scores(root)
    if len(known) >= MOST_SERIES:
        raise ScoreError(f"{SCORES_FILE} holds {MOST_SERIES} series; move it elsewhere")
    value = {"version": SCORES_VERSION, "series": [*known, series]}
    write_text(root / SCORES_FILE, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
