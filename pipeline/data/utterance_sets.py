"""Any set of utterances, recognised by its path.

A `.jsonl` file is a manifest, a `.txt` file holds a sentence a line, a folder with `wav.scp` is Kaldi's, another folder is
one of audio files.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pipeline.config.choices import CalibrationKind
from pipeline.data.manifest import manifest_lines, text_lines
from pipeline.errors import DataError
from pipeline.paths import near_files
from pipeline.utterance import OnBadSample, Utterance

AUDIO_SUFFIXES = frozenset(
    {".wav", ".wave", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".mp2", ".aiff", ".aif", ".aifc", ".au", ".snd", ".caf", ".w64",
     ".rf64", ".sph", ".nist", ".voc", ".avr", ".pvf", ".paf", ".svx", ".8svx", ".iff", ".ircam", ".sf", ".htk", ".sds", ".xi",
     ".wve", ".mat", ".mpc", ".sd2"}
)  # fmt: skip
"""The endings of the files that libsndfile reads and whose header says what is in them."""
LeftOut = Callable[[Sequence[str]], None]
"""Told of the files in a folder that are not taken for recordings."""

NEEDED = {
    CalibrationKind.audio: "a folder of audio files",
    CalibrationKind.manifest: "a .jsonl manifest, or a Kaldi folder with wav.scp",
    CalibrationKind.sentences: "a .txt file with a sentence a line",
    CalibrationKind.arrays: "an .npz whose arrays are named <sample>/<input name>",
}


def utterances_in(path: Path, key: str, on_bad: OnBadSample, left_out: LeftOut = lambda _files: None) -> Iterator[Utterance]:
    """Yield the utterances of a set, in its order.

    Args:
        path: a manifest, a file of sentences, a Kaldi folder or a folder of audio.
        key: the config key that names it, for messages.
        on_bad: called with what belongs to no utterance, such as a transcript without audio.
        left_out: called with the files in a folder of audio that are not recordings.

    Raises:
        DataError: there is nothing at the path, or not what a set is made of.
    """
    match kind_of(path):
        case CalibrationKind.sentences:
            yield from _sentences(path, key)
        case CalibrationKind.audio:
            yield from _recordings(path, key, left_out)
        case _ if path.is_dir():
            yield from _kaldi(path, key, on_bad)
        case _:
            yield from manifest_lines(path, key)


def kind_of(path: Path) -> CalibrationKind:
    """Return what a path is: a folder of audio, a file of sentences, arrays, or a manifest (Kaldi's included)."""
    if path.suffix == ".npz":
        return CalibrationKind.arrays
    if path.is_dir():
        return CalibrationKind.manifest if (path / "wav.scp").exists() or (path / "text").exists() else CalibrationKind.audio
    return CalibrationKind.sentences if path.suffix == ".txt" else CalibrationKind.manifest


def check_kind(path: Path, kind: CalibrationKind) -> None:
    """Check that a path holds what `calibration=<kind>` needs.

    Raises:
        DataError: it holds something else.
    """
    if not path.exists() or (found := kind_of(path)) is kind:
        return
    if kind in NEEDED or found is CalibrationKind.arrays:
        raise DataError(
            f"calibration.path: {path} is {NEEDED[found]}, but calibration={kind.name} needs "
            f"{NEEDED.get(kind, 'a set of utterances')}. "
            f"Use calibration={found.name}, or name another path."
        )


def files_of(path: Path) -> list[Path]:
    """Return the files that define a set, without its recordings."""
    return [path / "wav.scp", path / "text"] if path.is_dir() else [path]


def _sentences(path: Path, key: str) -> Iterator[Utterance]:
    if not path.is_file():
        raise DataError(f"{key}: there is no file {path}. It is text with a sentence a line.{near_files(path)}")
    for number, line in enumerate(text_lines(path, key), start=1):
        if line.strip():
            yield Utterance(f"{path.stem}_{number:03d}", text=line.strip())


def _recordings(folder: Path, key: str, left_out: LeftOut) -> Iterator[Utterance]:
    """Yield the recordings of a folder by their paths in it; two that differ in their endings alone keep them in their ids."""
    present = sorted(file for file in folder.rglob("*") if file.is_file() and not file.name.startswith("."))
    files = [file for file in present if file.suffix.lower() in AUDIO_SUFFIXES]
    if others := [file.relative_to(folder).as_posix() for file in present if file not in files]:
        left_out(others)
    if not files:
        raise DataError(f"{key}: {folder} holds no audio file ({', '.join(sorted(AUDIO_SUFFIXES))}).")
    stems = Counter(file.with_suffix("") for file in files)
    for file in files:
        named = file if stems[file.with_suffix("")] > 1 else file.with_suffix("")
        yield Utterance(named.relative_to(folder).as_posix(), audio=file)


def _kaldi(folder: Path, key: str, on_bad: OnBadSample) -> Iterator[Utterance]:
    if (folder / "segments").exists():
        raise DataError(f"{key}: {folder}/segments cuts recordings into parts, which is not read. Write the parts as files.")
    recordings = _table(folder / "wav.scp", key)
    texts = _table(folder / "text", key) if (folder / "text").exists() else {}
    for name in texts:
        if name not in recordings:
            on_bad(name, f"{folder}/text has a transcript of {name!r}, but {folder}/wav.scp has no audio of it.")
    for name, place in recordings.items():
        if place.endswith("|"):
            on_bad(name, f"{folder}/wav.scp: {name!r} is a command ({place[:60]}), which is never run. Give a file.")
            continue
        beside = folder / place
        yield Utterance(name, text=texts.get(name), audio=beside if beside.exists() else Path(place).absolute())


def _table(path: Path, key: str) -> dict[str, str]:
    """Read lines of `<id> <value>`."""
    if not path.is_file():
        raise DataError(f"{key}: there is no file {path}: a line '<id> <path>' for each recording.{near_files(path)}")
    table: dict[str, str] = {}
    for number, line in enumerate(text_lines(path, key), start=1):
        if not line.strip():
            continue
        name, _, value = line.strip().partition(" ")
        if not value.strip():
            raise DataError(f"{key}: {path}, line {number}: expected '<id> <value>', found {line!r}.")
        if name in table:
            raise DataError(f"{key}: {path}, line {number}: the id {name!r} is there twice.")
        table[name] = value.strip()
    return table
