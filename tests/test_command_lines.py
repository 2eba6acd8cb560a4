"""Awkward and wrong command lines: each runs, or ends in one error and a line that runs when it is pasted.

Lines stand here as they are typed into a shell; `~` inside of a word is not expanded by one.
"""

import shlex
import shutil

import pytest

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
    f"{OWN}=model.onnx mode==dynamic",
    f"{OWN}=model.onnx benchmark.runs=1",
    f"{OWN}=model.onnx benchmark.runs=viele",
    f"{OWN}=model.onnx stages=load",
    f"{OWN}=model.onnx --multirn mode=static,dynamic",
    f"{OWN}=model.onnx --verbose",
    f"{OWN}=model.onnx ''",
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
