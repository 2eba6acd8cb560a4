"""The files of a package: graphs under the client's names, what lies beside them, licences, checksums."""

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx

from pipeline.errors import StageError
from pipeline.graph.large_models import is_large
from pipeline.graph.source_graph import external_files
from pipeline.models.client_layout import ClientLayout
from pipeline.models.loaded_model import LoadedModel
from pipeline.paths import hash_files
from pipeline.quantize.artifact import Artifact
from pipeline.record.packaged import PackagedFile

CHECKSUMS = "SHA256SUMS"
LICENCES = ("LICENSE*", "LICENCE*", "COPYING*", "NOTICE*")
ORIGINAL_README = "README.original.md"


@dataclass(frozen=True)
class PackagedGraph:
    """A graph in the package.

    Attributes:
        role: such as `acoustic`.
        name: its file's.
        source: the file that it is a copy of.
        quantized: whether that is an artifact of the run.
    """

    role: str
    name: str
    source: Path
    quantized: bool


def graphs_to_pack(
    model: LoadedModel, artifacts: Mapping[str, Artifact], layout: ClientLayout | None
) -> tuple[PackagedGraph, ...]:
    """Return the graphs of a package: those of the run in the place of their originals, the others as they were.

    Args:
        model: the original.
        artifacts: role -> what was made of it.
        layout: how the client is given the model; None: no client, and only what was made.
    """
    if layout is None:
        return tuple(PackagedGraph(role, found.path.name, found.path, True) for role, found in artifacts.items())
    found = []
    for file in layout.files:
        if file.graph is None:
            continue
        artifact = artifacts.get(file.graph)
        if artifact is None:
            found.append(PackagedGraph(file.graph, file.name, model[file.graph].path, False))
        else:
            kind = artifact.path.suffixes[-2]  # .int8 of acoustic.int8.onnx
            name = f"{Path(file.name).stem}{'' if kind == '.fp32' else kind}.onnx"
            found.append(PackagedGraph(file.graph, name, artifact.path, True))
    return tuple(found)


def copy_files(folder: Path, graphs: Iterable[PackagedGraph], layout: ClientLayout | None, beside: Iterable[Path]) -> None:
    """Copy graphs, what the client needs beside them, and licences into an empty directory.

    Args:
        folder: the package.
        graphs: what `graphs_to_pack` has found.
        layout: as there.
        beside: files that lie beside the originals and decide what they mean, for a package without a client.
    """
    folders: dict[Path, None] = {}
    for graph in graphs:
        _copy_graph(graph, folder)
    if layout is not None:
        for file in layout.files:
            if file.source is not None:
                _copy(file.source, folder / file.name)
                folders[file.source.parent] = None
            elif file.text is not None:
                (folder / file.name).write_text(file.text, encoding="utf-8")
        for path in layout.copied:
            _copy(path, folder / path.name)
    else:
        for path in beside:
            if path.is_file():
                _copy(path, folder / path.name)
    folders |= {graph.source.parent: None for graph in graphs if not graph.quantized}
    for origin in folders:
        for path in sorted(path for pattern in LICENCES for path in origin.glob(pattern)):
            _copy(path, folder / path.name)
        if (origin / "README.md").is_file() and not (folder / ORIGINAL_README).exists():
            _copy(origin / "README.md", folder / ORIGINAL_README)


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True)
    elif not target.exists():
        shutil.copyfile(source, target)


def _copy_graph(graph: PackagedGraph, folder: Path) -> None:
    """Copy a graph: as one file where that is possible, since clients disagree on where weights beside it are looked for."""
    bare = onnx.load(graph.source, load_external_data=False)
    outside = external_files(bare, graph.source.parent)
    if not outside:
        shutil.copyfile(graph.source, folder / graph.name)
        return
    if sum(path.stat().st_size for path in outside) + bare.ByteSize() < 1 << 31:
        whole = onnx.load(graph.source)
        if not is_large(whole):
            onnx.save(whole, folder / graph.name)
            return
    shutil.copyfile(graph.source, folder / graph.name)
    for path in outside:
        target = folder / path.relative_to(graph.source.parent)  # where the graph says that its weights are
        if target.exists():
            raise StageError(
                f"package: two graphs keep their weights in a file of the same name, {path.name}: they cannot lie in one "
                "directory."
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)


def with_checksums(folder: Path) -> list[PackagedFile]:
    """Write SHA256SUMS, which `sha256sum -c` reads, and return the files that it lists."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != CHECKSUMS)
    hashed, _ = hash_files(*files)
    found = [PackagedFile(one.path.relative_to(folder).as_posix(), one.bytes, one.sha256) for one in hashed]
    (folder / CHECKSUMS).write_text("".join(f"{one.sha256}  {one.file}\n" for one in found), encoding="utf-8")
    return found
