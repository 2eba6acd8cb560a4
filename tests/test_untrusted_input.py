"""What strangers' files may not do: a test for each row of docs/security.md that no other file has one for."""

import ast
import io
import json
import os
import pickle
import tarfile
import zipfile

import numpy as np
import onnx
import pytest
from onnx import helper

from pipeline.config.saved_settings import read_settings
from pipeline.data.arrays import read_arrays, read_labels
from pipeline.data.download import _extract
from pipeline.errors import ConfigError, DataError, ModelError
from pipeline.graph.rehearsal import rehearsals
from pipeline.graph.source_graph import load_graph
from pipeline.limits import LimitsConfig, holding
from pipeline.record.run_directory import RunDirectory

# Graphs


@pytest.fixture
def loaded(tmp_path):
    """Return a function that loads a model as a run does: its graphs are opened in another process first."""

    def load(model, name="model.onnx"):
        path = tmp_path / name
        path.write_bytes(model.SerializeToString() if isinstance(model, onnx.ModelProto) else model)
        with rehearsals():
            return load_graph("g", str(path))

    return load


@pytest.mark.parametrize("place", ["../w.bin", "/etc/hostname", "inside/../../w.bin", "./../w.bin", "..\\w.bin"])
def test_weights_are_not_read_from_outside_of_the_models_directory(tmp_path, conv_net, place):
    folder = tmp_path / "model"
    (folder / "inside").mkdir(parents=True)
    onnx.save_model(conv_net(), folder / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    (folder / "w.bin").rename(tmp_path / "w.bin")
    model = onnx.load(folder / "m.onnx", load_external_data=False)
    for tensor in model.graph.initializer:
        next(entry for entry in tensor.external_data if entry.key == "location").value = place
    (folder / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=r"outside of the model's directory .* are not read"):
        load_graph("g", str(folder / "m.onnx"))


def varint(number):
    """Return a number as protobuf writes it."""
    low, high = number & 127, number >> 7
    return bytes([low | 128]) + varint(high) if high else bytes([low])


def field(number, content):
    """Return a field of a protobuf message: bytes, or a number."""
    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    return varint(number << 3 | 2) + varint(len(content)) + content


def nested(depth):
    """Return a model with an If in an If in an If ..., as bytes: the Python API itself goes no deeper than some thirty."""
    constant = helper.make_node("Constant", [], ["v"], value_float=1.0).SerializeToString()
    output = field(12, helper.make_tensor_value_info("v", onnx.TensorProto.FLOAT, []).SerializeToString())
    plain = field(1, constant) + field(2, b"plain") + output
    body = plain
    for _ in range(depth):
        branches = ((b"then_branch", body), (b"else_branch", plain))
        attributes = b"".join(field(5, field(1, name) + field(6, inner) + field(20, 5)) for name, inner in branches)
        body = field(1, field(1, b"c") + field(2, b"v") + field(4, b"If") + attributes) + field(2, b"body") + output
    graph = body + field(11, helper.make_tensor_value_info("c", onnx.TensorProto.BOOL, []).SerializeToString())
    return field(1, 8) + field(7, graph) + field(8, helper.make_opsetid("", 17).SerializeToString())


def absurd(build, kind):  # noqa: PLR0912, PLR0915  a row for each kind
    """Return a graph that is wrong in a way that ONNX's format allows."""
    model = build(
        "g (float[n, 4] x) => (float[n, 4] y) { [a] h = MatMul (x, w) [b] y = Relu (h) }", w=np.eye(4, dtype=np.float32)
    )
    graph = model.graph
    match kind:
        case "an axis of 2^62":
            graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2**62
        case "an axis below zero":
            graph.input[0].type.tensor_type.shape.dim[1].dim_value = -7
        case "a constant that says it is large":
            graph.initializer[0].dims[:] = [2**31, 2**31]
        case "a constant with an axis below zero":
            graph.initializer[0].dims[:] = [-4, -4]
        case "a constant of no type":
            graph.initializer[0].data_type = 0
        case "a constant of an unknown type":
            graph.initializer[0].data_type = 99
        case "a constant that is declared and absent":
            del graph.initializer[:]
        case "a constant that is there twice":
            graph.initializer.append(onnx.numpy_helper.from_array(2 * np.eye(4, dtype=np.float32), "w"))
        case "a circle":
            graph.node[0].input[0] = "y"
        case "a node that reads itself":
            graph.node[1].input[0] = "y"
        case "two nodes of one name":
            graph.node[1].name = "a"
        case "two tensors of one name":
            graph.node[0].output[0] = "y"
        case "an output that nothing makes":
            graph.output[0].name = "z"
        case "an input without a type":
            graph.input[0].ClearField("type")
        case "an opset of the future":
            model.opset_import[0].version = 2**31
        case "no opset":
            del model.opset_import[:]
        case "an IR version of the future":
            model.ir_version = 2**40
        case "a name of a megabyte":
            graph.node[0].name = "n" * 1_000_000
        case "a library of operators":
            graph.node[1].domain, graph.node[1].op_type = "evil.so", "Run"
            model.opset_import.append(helper.make_opsetid("evil.so", 1))
            helper.set_model_props(model, {"custom_ops_library": "evil.so", "ort_config": json.dumps({"session_options": {}})})
        case "a function that calls itself":
            call = helper.make_node("f", ["a"], ["b"], domain="d")
            model.functions.append(helper.make_function("d", "f", ["a"], ["b"], [call], [helper.make_opsetid("d", 1)]))
            graph.node[1].domain, graph.node[1].op_type = "d", "f"
            model.opset_import.append(helper.make_opsetid("d", 1))
        case "functions that double":
            for level in range(40):
                nodes = [
                    helper.make_node(f"f{level - 1}" if level else "Relu", [i], [o], domain="d" if level else "")
                    for i, o in (("a", "m"), ("m", "b"))
                ]
                imports = [helper.make_opsetid("d", 1), helper.make_opsetid("", 17)]
                model.functions.append(helper.make_function("d", f"f{level}", ["a"], ["b"], nodes, imports))
            graph.node[1].domain, graph.node[1].op_type = "d", "f39"
            model.opset_import.append(helper.make_opsetid("d", 1))
    return model


ABSURD = (
    "an axis of 2^62", "an axis below zero", "a constant that says it is large", "a constant with an axis below zero",
    "a constant of no type", "a constant of an unknown type", "a constant that is declared and absent",
    "a constant that is there twice", "a circle", "a node that reads itself", "two nodes of one name",
    "two tensors of one name",
    "an output that nothing makes", "an input without a type", "an opset of the future", "no opset",
    "an IR version of the future", "a name of a megabyte", "a library of operators", "a function that calls itself",
    "functions that double",
)  # fmt: skip
FINE = {"a name of a megabyte", "an axis below zero", "an axis of 2^62"}


@pytest.mark.parametrize("kind", ABSURD)
def test_a_graph_that_the_format_allows_and_sense_does_not_is_loaded_or_refused(loaded, build, kind):
    with holding(LimitsConfig(opening_seconds=4, memory_mb=1000)):
        try:
            loaded(absurd(build, kind))
        except ModelError as error:
            assert kind not in FINE, error
            assert "model.onnx" in str(error)
        else:
            assert kind in FINE


@pytest.mark.parametrize("depth", [12, 200])
def test_bodies_in_bodies_are_loaded_or_refused_however_deep(loaded, depth):
    try:
        loaded(nested(depth))
    except ModelError as error:
        assert depth == 200, error


def test_very_many_nodes_are_no_reason_to_fall_over(loaded):
    nodes = [onnx.NodeProto(op_type="Relu", input=[f"t{n}"], output=[f"t{n + 1}"]) for n in range(10_000)]
    values = [helper.make_tensor_value_info(name, 1, ["n"]) for name in ("t0", "t10000")]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:])
    found = loaded(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    assert len({node.name for node in found.model.graph.node}) == 10_000


def test_no_code_registers_a_library_of_operators_or_loads_pickles(repo):
    """Read from the source: what is never called cannot be reached by any input."""
    for path in (repo / "pipeline").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                where = f"{path}:{node.lineno}"
                assert called not in ("register_custom_ops_library", "eval", "exec", "unsafe_load", "full_load"), where
                if called == "load" and getattr(getattr(node.func, "value", None), "id", "") == "np":
                    allowed = {keyword.arg: keyword.value for keyword in node.keywords}
                    assert isinstance(allowed["allow_pickle"], ast.Constant), where
                    assert allowed["allow_pickle"].value is False, where
            elif isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
                assert not {"pickle", "marshal", "shelve", "dill", "joblib"} & set(names), path


# Arrays


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def test_arrays_that_hold_a_program_are_refused_and_it_does_not_run(tmp_path):
    mark = tmp_path / "ran"
    np.savez(tmp_path / "evil.npz", **{"one/x": np.array([Evil(mark)], object)})
    (tmp_path / "evil.npy").write_bytes(pickle.dumps(Evil(mark)))
    (tmp_path / "plain.npz").write_bytes(pickle.dumps(Evil(mark)))
    for name in ("evil.npz", "plain.npz"):
        with pytest.raises(DataError, match=name):
            read_arrays(tmp_path / name, "calibration.path", 5)
    with pytest.raises(DataError, match=r"evil\.npy"):
        read_labels(tmp_path / "evil.npy")
    assert not mark.exists()


def test_archives_of_arrays_that_are_damaged_or_are_none_are_data_errors(tmp_path):
    np.savez_compressed(tmp_path / "good.npz", **{"one/x": np.arange(1000.0)})
    whole = bytearray((tmp_path / "good.npz").read_bytes())
    broken = {"no sum": bytes(whole[:80]) + b"\x00" * 40 + bytes(whole[120:]), "one array.npy": b"", "cut": bytes(whole[:-30])}
    stream = io.BytesIO()
    np.save(stream, np.arange(4.0))
    broken["one array.npy"] = stream.getvalue()
    for name, contents in broken.items():
        (tmp_path / "bad.npz").write_bytes(contents)
        with pytest.raises(DataError, match=r"bad\.npz is not an \.npz that numpy reads"):
            read_arrays(tmp_path / "bad.npz", "calibration.path", 5)
        assert name


# Archives


def tar_of(path, *members):
    with tarfile.open(path, "w:gz") as archive:
        for member, contents in members:
            member.size = len(contents)
            archive.addfile(member, io.BytesIO(contents))


def link(name, target, kind=tarfile.SYMTYPE):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member, b""


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
@pytest.mark.parametrize("target", ["../outside", "/etc"])
def test_an_archive_with_a_link_to_elsewhere_is_refused(tmp_path, kind, target):
    (tmp_path / "outside").mkdir()
    tar_of(tmp_path / "m.tar.gz", link("way", target, kind), (tarfile.TarInfo("way/file"), b"x"))
    with pytest.raises(tarfile.TarError):
        _extract(tmp_path / "m.tar.gz", tmp_path / "unpacked")
    assert not list((tmp_path / "outside").iterdir())


def test_a_zip_whose_members_are_named_elsewhere_stays_in_its_folder(tmp_path):
    with zipfile.ZipFile(tmp_path / "m.zip", "w") as archive:
        for name in ("../outside.txt", "/tmp/outside.txt", "..\\outside.txt"):
            archive.writestr(name, "x")
    _extract(tmp_path / "m.zip", tmp_path / "unpacked")
    assert {path.name for path in tmp_path.iterdir()} == {"m.zip", "unpacked"}


@pytest.mark.parametrize("suffix", [".tar.gz", ".zip"])
def test_an_archive_that_unpacks_to_more_than_a_model_may_have_is_not_unpacked(tmp_path, suffix):
    archive, zeros = tmp_path / f"m{suffix}", bytes(3_000_000)
    if suffix == ".zip":
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
            packed.writestr("model.onnx", zeros)
    else:
        tar_of(archive, (tarfile.TarInfo("model.onnx"), zeros))
    assert archive.stat().st_size < 10_000
    with holding(LimitsConfig(model_mb=1)), pytest.raises(DataError, match=r"limits\.model_mb: 1"):
        _extract(archive, tmp_path / "unpacked")
    assert not list((tmp_path / "unpacked").iterdir())


# Settings of a stranger


@pytest.fixture
def strangers_run(tmp_path):
    """Return a function that makes a run's directory from settings; as if it came from a stranger."""

    def make(text):
        folder = tmp_path / "past"
        folder.mkdir()
        (folder / "config.yaml").write_text(text, encoding="utf-8")
        (folder / "report.json").write_text('{"schema": 2, "status": "done"}', encoding="utf-8")
        return folder

    return make


KINDS = "calibration: {kind: random}\nevaluation: {kind: audio}\nstages: [load]\nseed: 0\n"
GIVEN = "model: {_target_: pipeline.models.vocoder.Vocoder, name: v, path: m.onnx}\nmode: {kind: dynamic, name: dynamic}\n"


@pytest.mark.parametrize(
    "where", ["model: {name: '${oc.env:SECRET}'}", "seed: ${oc.decode:${oc.env:SECRET}}", "'${oc.env:SECRET}': 1"]
)
def test_settings_of_a_stranger_do_not_read_the_environment(strangers_run, run_quickly, where):
    text = GIVEN.replace("model:", "was:") + where if where.startswith("model") else GIVEN + where
    folder = strangers_run(text)
    run = run_quickly(f"rerun={folder}", SECRET="hush-hush")
    assert run.exit_code == 2
    assert "which no run writes" in run.stderr
    written = [path for path in run.folder.rglob("*") if path.is_file() and path != folder / "config.yaml"]
    assert not any(b"hush-hush" in path.read_bytes() for path in written)
    assert "hush-hush" not in run.stderr + run.stdout


@pytest.mark.parametrize(
    "target",
    ["os.system", "pipeline.models.vocoder.np.load", "pipeline.models.model_sessions.Call", "pipeline.models.vocoder",
     "pipeline.models.speech_model.Path", "pipeline.models.__builtins__", ""],
)  # fmt: skip
def test_settings_of_a_stranger_make_no_object_but_an_adapter(strangers_run, run_quickly, target):
    run = run_quickly(f"rerun={strangers_run(GIVEN.replace('pipeline.models.vocoder.Vocoder', target or 'null'))}")
    assert run.exit_code == 2
    assert "model._target_" in run.stderr
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize(
    "text",
    [
     "a: &a [x]\nmodel: *a\nmode: *a\n", "!!python/object/apply:os.system ['true']", "- a list", "{" * 1500, "model: [",
     "\x00"],
)  # fmt: skip
def test_settings_that_no_run_has_written_are_refused(tmp_path, text):
    (tmp_path / "config.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"rerun: .*config"):
        read_settings(tmp_path / "config.yaml")


# Directories


@pytest.mark.parametrize("name", [".staging", "samples"])
def test_a_run_does_not_write_or_remove_through_a_link_in_its_directory(tmp_path, name):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("kept", encoding="utf-8")
    run = tmp_path / "run"
    run.mkdir()
    (run / name).symlink_to(tmp_path / "precious", target_is_directory=True)
    with pytest.raises(ConfigError, match=rf"symbolic link {name}"):
        RunDirectory(run)
    assert [path.read_text(encoding="utf-8") for path in (tmp_path / "precious").iterdir()] == ["kept"]


def test_files_of_a_run_replace_links_and_do_not_follow_them(tmp_path):
    run, precious = tmp_path / "run", tmp_path / "precious"
    run.mkdir()
    precious.write_text("kept", encoding="utf-8")
    for name in ("report.html", "config.yaml", f".report.html.{os.getpid()}"):
        (run / name).symlink_to(precious)
    directory = RunDirectory(run)
    for name in ("report.html", "config.yaml"):
        directory.write_text(name, "new")
        assert not (run / name).is_symlink()
    assert precious.read_text(encoding="utf-8") == "kept"


def test_a_report_that_is_no_file_is_none(tmp_path, run_quickly):
    for name, target in (("config.yaml", "/dev/zero"), ("report.json", "/dev/zero")):
        (tmp_path / name).symlink_to(target)
    run = run_quickly(f"rerun={tmp_path}")
    assert run.exit_code == 2
    assert "Traceback" not in run.stderr


def test_a_strangers_report_does_not_name_files_elsewhere_as_its_models(strangers_run, run_quickly, tmp_path):
    folder = strangers_run(f"{GIVEN}{KINDS}")
    artifact = {"graph": "vocoder", "file": "../v.int8.onnx", "sha256": "0" * 64, "bytes": 1, "baseline_bytes": 4}
    artifact |= {"quantized_nodes": {}, "kernels": {}, "kept": []}
    report = {"schema": 2, "status": "done", "artifacts": [artifact]}
    (folder / "report.json").write_text(json.dumps(report), encoding="utf-8")
    (tmp_path / "v.int8.onnx").write_bytes(b"elsewhere")
    run = run_quickly(f"run={folder}", "say=hello")
    assert run.exit_code == 2
    assert "does not lie in it" in run.stderr
