"""Awkward and wrong command lines: each runs, or ends in one error and a line that runs when it is pasted.

Lines stand here as they are typed into a shell; `~` inside of a word is not expanded by one.
"""

import shlex
import shutil

import pytest

from pipeline.command_line.arguments import prepare
from pipeline.command_line.correction import corrected
from pipeline.config.model_name import model_name
from pipeline.errors import ModelError
from pipeline.models.model_kind import model_kind

LOAD = "stages=[load]"
OWN = "model=onnx model.path"
PAST = "outputs/onnx/static/x"
RUN = [  # what a shell hands over reaches the program as it is
    f"{OWN}=模型/声码器.onnx",
    f"{OWN}='模型/声码器 (1).onnx'",
    f"{OWN}='我的 模型/模型[最终].onnx'",
    f"{OWN}=模型/声码器.onnx model.name=我的模型",
    f"{OWN}=~/models/model.onnx",
    f"{OWN}='~/my models/model (1).onnx'",
    f"{OWN}=a=b.onnx",
    f"{OWN}=a,b.onnx",
    f'{OWN}="it\'s.onnx"',
    f"{OWN}='[x].onnx'",
    f"{OWN}='{{x}}.onnx'",
    f"{OWN}=2024",
    "model=onnx model.dir=模型/目录",
    "model=onnx model.path=\"'模型/声码器 (1).onnx'\"",  # quoted once more, for Hydra
    f"{OWN}=model.onnx hydra.run.dir='~/结果 (1)'",
    f"{OWN}=model.onnx evaluation.path=数据/评测.npz",
    f"-m {OWN}=a,b.onnx,model.onnx",
    f"-m {OWN}=模型/声码器.onnx,'模型/声码器 (1).onnx' mode=dynamic",
    f"{OWN}=model.onnx 'mode.nodes_to_exclude=[卷积 (1),conv_a]'",
    f"{OWN}=model.onnx mode=dynamic -m",
    f"{OWN}=model.onnx +mode.method=mse",
    "模型/声码器.onnx",
    "'~/my models/model (1).onnx' --eval eval.npz",
    "path=model.onnx data=calib.npz eval=数据/评测.npz",
    "model.onnx --calib=calib.npz mode=dynamic",
]
CORRECTED = [  # the error, and what is meant
    f"--model onnx --model.path 模型/声码器.onnx {LOAD}",
    f"{OWN}=model.onnx --mode=dynamic",
    f"{OWN}=model.onnx mode=statik",
    f"{OWN}=model.onnx mode=static mode.methd=mse",
    f"{OWN}=model.onnx mode.method=minmx",
    f"{OWN}=model.onnx mode.op_types=Conv",
    f"{OWN}=model.onnx benchmark.threads=1,2",
    f"{OWN}=model.onnx mode=static,dynamic",
    f"-m {OWN}=model.onnx mode=static,dynamik",
    f"{OWN}=model.onnx mode = dynamic",
    f"{OWN}=model.onnx mode= dynamic",
    f"{OWN}=model.onnx mode=float",
    f"{OWN}=model.onnx mode.rewrite=true",
    f"{OWN}=model.onnx mode＝dynamic",
    f"-m {OWN}=model.onnx mode=static，dynamic",
    f"{OWN}=model.onnx 模式=dynamic",
    f"{OWN}=model.onnx dynamic",
    f"{OWN}=model.onnx mode:dynamic",
    f"{OWN}=我的 模型/模型[最终].onnx mode=dynamic",  # a shell takes the space for the end of a word
    r"my models/model\ \(1\).onnx --eval eval.npz",
    f"{OWN}=model.onnx mode==dynamic",
    f"{OWN}=model.onnx benchmark.runs=1",
    f"{OWN}=model.onnx benchmark.runs=viele",
    f"{OWN}=model.onnx stages=load",
    f"{OWN}=model.onnx --multirn mode=static,dynamic",
    f"{OWN}=model.onnx --verbose",
    f"{OWN}=model.onnx ''",
    f"{OWN}=model.onnx model.fixed_input=null",
    f"{OWN}=model.onnx ~mode",
    f"{OWN}=model.onnx evaluation.path=",
    f"{OWN}=model.onnx --cfg jb",
    f"{OWN}=模型/声码器2.onnx",
    f"{OWN}='my models/model (2).onnx'",
    "模型/声码器2.onnx --eval eval.npz",
    "model.onnx --eval 数据/评测",
    "path=modle.onnx data=calib.npz",
    "model.onnx --calib no/where.npz",
    f"{OWN}=model.onnx mode=dynamic evaluation.path=数据/评.npz stages=[load,quantize]",
    f"{OWN}=model.onnx mode=dynamic calibration.path=数据/没有.npz",
    f"{OWN}=model.onnx 'mode.op_types=[Conv'",
    f"{OWN}=model.onnx benchmark=null",
    f"{OWN}=model.onnx benchmark=5",
    "model=null path=model.onnx",
    f"-m {OWN}=model.onnx mode=dynamic experiment=null,fast",
    "model.onnx 模型/声码器.onnx",
    "data=calib.npz model.onnx model=onnx model.path=model.onnx",
    "data=data/clips",
    f"--experimental-rerun {PAST}/.hydra/config.pickle",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, make_user_files, repo, run_in):
    """Return a folder with a model and data under many names; it is the home directory as well."""
    folder = make_user_files(tmp_path_factory.mktemp("awkward"))
    for name in (
        "模型/声码器.onnx", "模型/声码器 (1).onnx", "我的 模型/模型[最终].onnx", "models/model.onnx",
        "my models/model (1).onnx", "a=b.onnx", "a,b.onnx", "it's.onnx", "[x].onnx", "{x}.onnx", "2024", "模型/目录/模型.onnx",
    ):  # fmt: skip
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / "model.onnx", folder / name)
    (folder / "数据").mkdir()
    shutil.copy(folder / "eval.npz", folder / "数据" / "评测.npz")
    (folder / "data").mkdir()
    shutil.copytree(repo / "data" / "clips" / "evaluation", folder / "data" / "clips")
    run_in(folder, "model=onnx", "model.path=model.onnx", "stages=[load]", f"hydra.run.dir={PAST}").succeeded()
    return folder


@pytest.fixture
def typed(folder, run_in, monkeypatch):
    """Return a function that runs a line as a shell would hand it over."""
    monkeypatch.setenv("HOME", str(folder))

    def run(line):
        stages = [] if "stages=" in line or "rerun" in line else [LOAD]
        return run_in(folder, *shlex.split(line), *stages)

    return run


@pytest.mark.parametrize("line", RUN)
def test_a_line_with_an_awkward_path_runs(typed, line):
    run = typed(line).succeeded()
    assert all((directory / "report.json").is_file() for directory in run.directories)


def test_no_experiment_can_be_asked_for(typed):
    assert typed(f"{OWN}=model.onnx mode=dynamic experiment=null").succeeded().report["model"] == "model"


@pytest.mark.parametrize("line", CORRECTED)
def test_a_wrong_line_is_refused_with_one_that_runs(typed, line):
    run = typed(line)
    assert run.exit_code == 2, run.stdout + run.stderr
    assert "Traceback" not in run.stdout + run.stderr
    for words in ("hydra.cc", "Exception", "mismatched input", "token recognition"):
        assert words not in run.stderr
    assert run.stderr.count("error:") == 1
    [pasted] = [text for text in run.stderr.splitlines() if text.startswith("try: ")]
    assert pasted.startswith("try: python ")
    again = typed(shlex.join(shlex.split(pasted)[3:]))
    assert again.exit_code == 0, f"{pasted}\n{again.stderr}"


def settings_of(run):
    [line] = [text for text in run.stderr.splitlines() if text.startswith("stands for: ")]
    return dict(word.partition("=")[::2] for word in shlex.split(line.removeprefix("stands for: "))[2:])


def test_a_short_form_finds_kind_mode_and_evaluation_and_prints_what_it_stands_for(typed, folder, repo):
    (folder / "voice").mkdir(exist_ok=True)
    shutil.copy(repo / "data" / "models" / "vocoder" / "vocos.onnx", folder / "voice" / "v 2.onnx")
    run = typed("'voice/v 2.onnx' --calib data/clips --eval data/clips/manifest.jsonl").succeeded()
    assert settings_of(run) == {
        "model": "vocoder", "model.path": "voice/v 2.onnx", "mode": "static", "calibration": "audio",
        "calibration.path": "data/clips", "evaluation.path": "data/clips/manifest.jsonl", "stages": "[load]",
    }  # fmt: skip
    assert run.directory.parent == folder / "outputs" / "v_2" / "static"


@pytest.mark.parametrize(
    ("file", "kind", "mode"),
    [
        ("vocoder/vocos.onnx", "vocoder", "static"),
        ("hifigan/hifigan.onnx", "hifigan", "auto"),
        ("asr/model.onnx", "zipformer_ctc", "static"),
        ("matcha/model-steps-3.onnx", "matcha", "static"),
        ("matcha", "matcha", "static"),
        ("asr", "zipformer_ctc", "static"),
    ],
)
def test_the_kind_of_a_model_is_seen_in_its_files(repo, file, kind, mode):
    place = repo / "data" / "models" / file
    data = repo / "data" / ("sentences/calibration.jsonl" if kind == "matcha" else "clips/evaluation/manifest.jsonl")
    found = dict(text.partition("=")[::2] for text in prepare([str(place), f"data={data}"]).stands_for)
    assert (found["model"], found["mode"], found["calibration"]) == (kind, mode, "manifest")
    assert found["model.dir" if place.is_dir() else "model.path"] == str(place)


def test_without_data_a_short_form_takes_the_mode_that_needs_none(folder):
    assert prepare([str(folder / "model.onnx")]).stands_for == ["model=onnx", f"model.path={folder}/model.onnx", "mode=dynamic"]


def test_recordings_for_a_model_of_unknown_kind_are_refused_with_the_kinds_that_take_them(typed):
    run = typed("model.onnx --calib data/clips")
    assert run.exit_code == 2
    assert "model=vocoder" in run.stderr
    assert "an .npz of arrays" in run.stderr


@pytest.mark.parametrize("files", [("encoder.onnx", "decoder.onnx", "joiner.onnx"), ("a.onnx", "b.onnx"), ()])
def test_a_directory_is_a_transducer_or_must_name_one_of_its_models(folder, tmp_path, files):
    for name in files:
        shutil.copy(folder / "model.onnx", tmp_path / name)
    if len(files) == 3:
        assert model_kind(tmp_path).model == "zipformer_transducer"
        return
    with pytest.raises(ModelError, match="name one" if files else "holds no ONNX model"):
        model_kind(tmp_path)


@pytest.mark.parametrize("typed_line", ["", "--help", "--version"])
def test_the_command_alone_shows_help_and_makes_nothing(run_quickly, tmp_path, typed_line):
    run = run_quickly(*typed_line.split()).succeeded()
    assert ("--calib" in run.stdout) != (typed_line == "--version")
    assert ("speech-quantize 0." in run.stdout) == (typed_line == "--version")
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ({"path": "/data/gtcrn.onnx"}, "gtcrn"),
        ({"path": "/data/gtcrn/model.onnx"}, "gtcrn"),
        ({"path": "model.onnx"}, "model"),
        ({"path": "模型/声码器 (1).onnx"}, "声码器_1"),
        ({"path": "data/models/vocoder/vocos.onnx"}, "vocoder"),
        ({"path": "x.onnx", "folder": "/m/sherpa-onnx-zipformer-ctc-zh/"}, "sherpa-onnx-zipformer-ctc-zh"),
        ({"url": "https://example.org/m/matcha-icefall-zh-baker.tar.bz2"}, "matcha-icefall-zh-baker"),
        ({"path": "..."}, "vocoder"),
        ({}, "vocoder"),
    ],
)
def test_a_model_is_called_what_its_file_or_folder_is(place, name):
    assert model_name("vocoder", **place) == name


def test_run_and_artifact_are_named_after_the_file(typed, folder):
    line = f"{OWN}='模型/声码器 (1).onnx' mode=dynamic evaluation.path=eval.npz stages=[load,quantize]"
    run = typed(line).succeeded()
    assert run.directory.parent == folder / "outputs" / "声码器_1" / "dynamic"
    assert run.report["model"] == "声码器_1"
    assert [artifact["file"] for artifact in run.report["artifacts"]] == ["声码器 (1).int8.onnx"]
    assert (run.directory / "声码器 (1).int8.onnx").is_file()
    again = typed(f"rerun={run.directory}").succeeded()
    assert again.directory.parent == run.directory.parent
    assert again.report["rerun"]["artifacts_identical"] == {"声码器 (1).int8.onnx": True}
    typed(f"'compare=[{run.directory.parent}/*]' rerun=null").succeeded()


def test_the_command_that_failed_is_not_suggested_again():
    near = "evaluation.path: there is no file or folder /dev/null. Did you mean null?"
    assert corrected(["model=asr", "evaluation.path=/dev/null"], near) is None
    assert corrected(["model=asr", "evaluation.path=/dev/nul"], near) == ["model=asr", "evaluation.path=/dev/null"]
