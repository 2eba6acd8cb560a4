"""The package stage by the real command: what goes to a device, and what the real client makes of it."""

import hashlib
import json
import os
import re
import stat
import sys

import onnx
import pytest
import yaml

from tests.nemo_graphs import DURATIONS, write_nemo
from tests.streaming_graphs import write_streaming
from tests.whisper_graphs import MULTILINGUAL, write_whisper

pytest.importorskip("sherpa_onnx", reason="needs the extra test")

FEW = ("evaluation.samples=12", "package.samples=4", "evaluation.listen=0", "evaluation.node_samples=0")
ASR = ("model=asr", "mode=dynamic", *FEW)


@pytest.fixture(scope="module")
def recogniser(run_in, tmp_path_factory):
    """Return a run that has packed the recogniser that ships."""
    folder = tmp_path_factory.mktemp("package")
    settings = ("package=sherpa_onnx", "package.license=apache-2.0", "package.ort=true")
    return run_in(folder, *ASR, *settings, "stages=[load,quantize,evaluate]").succeeded()


def card_of(folder):
    """Return the front matter of a model card, and its text."""
    _, front, text = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(front), text


def test_a_package_holds_the_graph_under_the_clients_name_and_what_it_needs(recogniser):
    folder = recogniser.directory / "package"
    artifact = recogniser.report["artifacts"][0]
    assert (folder / "model.int8.onnx").read_bytes() == (recogniser.directory / artifact["file"]).read_bytes()
    listed = {line.split("  ")[1]: line.split("  ")[0] for line in (folder / "SHA256SUMS").read_text().splitlines()}
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert set(listed) == there - {"SHA256SUMS"} == {file["file"] for file in recogniser.report["package"]["files"]}
    assert {"model.int8.onnx", "tokens.txt", "README.md"} < there
    for name, digest in listed.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest


def test_the_client_is_right_as_often_as_the_pipeline(recogniser):
    trial = recogniser.report["package"]["trial"]
    assert re.fullmatch(r"sherpa-onnx \d.*", trial["client"])
    assert trial["samples"] == 4
    assert abs(trial["wer_percent"] - trial["own_wer_percent"]) <= 0.5
    assert f"Tried in {trial['client']}" in recogniser.stdout
    assert recogniser.stdout.splitlines()[-1].endswith("/package")


def test_the_card_says_what_was_measured_and_its_commands_name_files_that_are_there(recogniser):
    folder = recogniser.directory / "package"
    front, text = card_of(folder)
    assert front["license"] == "apache-2.0"
    assert front["pipeline_tag"] == "automatic-speech-recognition"
    metrics = recogniser.report["evaluation"]["metrics"]
    [wer] = [m["value"] for one in front["model-index"][0]["results"] for m in one["metrics"] if m["type"] == "wer"]
    assert wer == pytest.approx(metrics["wer_percent"]["quantized"], abs=1e-3)
    assert f"{recogniser.report['artifacts'][0]['bytes']:,}" in text
    named = re.findall(r"--[\w-]+=(\S+)", text) + re.findall(r'"asr/([\w.]+)"', text)
    assert named and all((folder / name).is_file() for name in named)


def test_the_format_of_onnx_runtime_comes_with_the_operators_that_a_build_needs(recogniser):
    folder = recogniser.directory / "package" / "ort"
    assert {path.name for path in folder.iterdir()} == {"model.int8.ort", "required_operators.config"}
    assert "MatMulIntegerToFloat" in (folder / "required_operators.config").read_text()


@pytest.mark.parametrize("metadata", [{}, MULTILINGUAL])
def test_whisper_is_packed_with_both_graphs_and_writes_the_same_in_the_client(build, run_quickly, tmp_path, metadata):
    folder = write_whisper(tmp_path / "whisper", build, **metadata)
    run = run_quickly(
        "model=whisper", f"model.dir={folder}", "mode=dynamic", "package=sherpa_onnx", *FEW, "stages=[load,quantize]"
    ).succeeded()  # fmt: skip
    trial = run.report["package"]["trial"]
    assert trial["wer_percent"] == trial["own_wer_percent"]
    _, text = card_of(run.directory / "package")
    assert "--whisper-encoder=encoder.int8.onnx" in text
    assert ("--whisper-task=transcribe" in text) == ("task='transcribe'" in text) == bool(metadata)


def test_a_transducer_of_nemo_is_packed_with_the_type_that_the_client_must_be_told(build, run_quickly, tmp_path):
    folder = write_nemo(tmp_path / "nemo", build, DURATIONS)
    run = run_quickly(
        "model=nemo_transducer", f"model.dir={folder}", "mode=weight_only", "package=sherpa_onnx", *FEW,
        "stages=[load,quantize]",
    ).succeeded()  # fmt: skip
    trial = run.report["package"]["trial"]
    assert trial["wer_percent"] == trial["own_wer_percent"]
    _, text = card_of(run.directory / "package")
    assert "--model-type=nemo_transducer" in text
    assert "model_type='nemo_transducer'" in text
    assert 'modelType = "nemo_transducer")' in text


def test_a_streaming_recogniser_is_packed_for_the_client_that_hears_as_somebody_speaks(run_quickly, tmp_path):
    folder = write_streaming(tmp_path / "streaming")
    run = run_quickly(
        "model=streaming_zipformer", f"model.dir={folder}", "mode=weight_only", "package=sherpa_onnx", *FEW,
        "stages=[load,quantize]",
    ).succeeded()  # fmt: skip
    trial = run.report["package"]["trial"]
    assert trial["wer_percent"] == trial["own_wer_percent"]
    _, text = card_of(run.directory / "package")
    assert "sherpa-onnx \\\n  --encoder=encoder." in text
    assert "sherpa_onnx.OnlineRecognizer.from_transducer(" in text
    assert "OnlineModelConfig(transducer = OnlineTransducerModelConfig(encoder = " in text


def test_a_voice_is_packed_with_its_vocoder_and_speaks_in_the_client(run_quickly):
    run = run_quickly(
        "model=matcha", "mode=dynamic", *FEW, "package.samples=2", "package=sherpa_onnx", "stages=[load,quantize]"
    )
    run.succeeded()
    folder = run.directory / "package"
    assert {"model-steps-3.int8.onnx", "vocos.onnx", "tokens.txt"} < {path.name for path in folder.iterdir()}
    trial = run.report["package"]["trial"]
    assert trial["samples"] == 2
    assert abs(trial["wer_percent"] - trial["own_wer_percent"]) <= 5.0, "a word of about forty"
    assert "synthetic" in card_of(folder)[1]


@pytest.fixture
def python_that(tmp_path):
    """Return a function: lines of Python -> an executable that runs them in the place of an interpreter."""

    def make(*lines):
        path = tmp_path / "python"
        path.write_text("\n".join([f"#!{sys.executable}", "import os, sys", *lines]) + "\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return f"package.python={path}"

    return make


@pytest.mark.parametrize(
    ("end", "said"),
    [("os.kill(os.getpid(), 9)", "signal 9"), ("sys.exit('no metadata: encoder_dims')", "no metadata: encoder_dims")],
    ids=["killed", "refused"],
)
def test_a_client_that_ends_its_process_fails_the_run_and_leaves_no_package(run_quickly, python_that, end, said):
    run = run_quickly(*ASR, "stages=[load,quantize,package]", python_that(end))
    assert run.exit_code == 2
    assert "sherpa-onnx does not run model.int8.onnx" in run.stderr
    assert said in run.stderr and "Traceback" not in run.stderr
    assert run.report["status"] == "failed"
    assert (run.directory / run.report["artifacts"][0]["file"]).is_file()
    assert not [path for path in run.directory.iterdir() if "package" in path.name]


def test_a_client_that_hears_worse_than_the_pipeline_is_warned_of(run_quickly, python_that):
    answer = {"texts": ["nothing of that"] * 4, "version": "0.0", "onnxruntime": None}
    run = run_quickly(
        *ASR, "stages=[load,quantize,package]", python_that(f"open(sys.argv[3], 'w').write({json.dumps(answer)!r})")
    )
    assert any("points more than here" in warning for warning in run.succeeded().report["warnings"])


def test_speed_that_was_not_measured_in_the_clients_runtime_is_not_promised_there(run_quickly, python_that):
    answer = {"texts": ["nothing of that"] * 4, "version": "2.0.1", "onnxruntime": "1.28.2"}
    client = python_that(f"open(sys.argv[3], 'w').write({json.dumps(answer)!r})")
    run = run_quickly(*ASR, "stages=[load,quantize,benchmark,package]", client).succeeded()
    [timed] = run.report["benchmark"].values()
    [warned] = [text for text in run.report["warnings"] if "where it may be slower" in text] or [""]
    assert (timed["verdict"] == "faster") == bool(warned)
    assert not warned or ("sherpa-onnx 2.0.1 has 1.28.2" in warned and "benchmark.runtime=1.28.2" in warned)
    _, text = card_of(run.directory / "package")
    assert f"ONNX Runtime {timed['runtime']}, one thread. On other processors, and in the ONNX Runtime 1.28.2 of" in text


def test_a_model_of_unknown_kind_gets_a_package_for_any_program(user_files, run_quickly, users_model):
    (user_files / "LICENSE").write_text("as is")
    stages = ("mode=dynamic", "stages=[load,quantize,package]")
    run = run_quickly(*users_model, *stages, "mode.external_data=true").succeeded()
    folder = run.directory / "package"
    assert run.report["package"]["kind"] == "onnx" and run.report["package"]["trial"] is None
    assert not list(folder.glob("*.data")), "one file where that is possible"
    onnx.checker.check_model(str(folder / run.report["artifacts"][0]["file"]), full_check=True)
    assert card_of(folder)[0]["license"] == "other"
    refused = run_quickly(*users_model, *stages, "package=sherpa_onnx")
    assert refused.exit_code == 2
    assert "package=sherpa_onnx: what model is to sherpa-onnx is not known" in refused.stderr


def test_licences_and_readme_of_the_original_go_along(tmp_path, repo, run_quickly):
    for path in (repo / "data/models/asr").iterdir():
        os.link(path, tmp_path / path.name)
    (tmp_path / "LICENSE.txt").write_text("Apache")
    (tmp_path / "README.md").write_text("trained on clips")
    run = run_quickly("model=asr", f"model.dir={tmp_path}", "mode=dynamic", *FEW, "stages=[load,quantize,package]").succeeded()
    folder = run.directory / "package"
    assert (folder / "LICENSE.txt").read_text() == "Apache"
    assert (folder / "README.original.md").read_text() == "trained on clips"
    assert "README.original.md" in card_of(folder)[1]
