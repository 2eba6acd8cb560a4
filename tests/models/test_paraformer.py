"""Paraformer, exported of FunASR's layers with random weights: what the client reads, how it writes, and what stays in float.

tests/exported/paraformer.onnx is what this gives:
python benchmarks/funasr_models.py paraformer FOLDER --width 16 --blocks 2 --letters 40
"""

from pathlib import Path

import numpy as np
import onnx
import pytest

from pipeline.config.choices import SampleRateMismatch
from pipeline.data.audio_files import read_audio
from pipeline.data.manifest import manifest_lines
from pipeline.errors import DataError, PipelineError
from pipeline.graph.shape_deciding import shape_deciding_nodes
from pipeline.metrics.text_metrics import posterior_kl, posterior_kl_of_tokens
from pipeline.models.model_kind import model_kind
from pipeline.models.model_sessions import ModelSessions
from pipeline.models.paraformer import Paraformer
from pipeline.models.text.joined_units import joined_units
from tests.conftest import REPO

LETTERS = 40
TABLE = ["<blank>", "<s>", "</s>", *(chr(0x4E00 + number) for number in range(LETTERS)), "<unk>"]
PREDICTOR = {"/predictor/cif_conv1d/Conv", "/predictor/cif_output/MatMul"}


def write_paraformer(folder, table=TABLE, without=(), **metadata):
    """Write model.onnx and tokens.txt, with other metadata than the export's."""
    folder.mkdir(exist_ok=True)
    model = onnx.load(REPO / "tests/exported/paraformer.onnx")
    known = {entry.key: entry.value for entry in model.metadata_props}
    known |= {key: str(value) for key, value in metadata.items()}
    onnx.helper.set_model_props(model, {key: value for key, value in known.items() if key not in without})
    onnx.save(model, folder / "model.onnx")
    lines = "".join(f"{token} {number}\n" for number, token in enumerate(table))
    (folder / "tokens.txt").write_text(lines, encoding="utf-8")
    return folder


@pytest.fixture
def paraformer(tmp_path):
    return Paraformer("p", dir=str(write_paraformer(tmp_path / "paraformer")))


def told(rows, chosen):
    """Return outputs whose rows choose tokens."""
    logits = np.full((1, rows, len(TABLE)), -9, np.float32)
    logits[0, np.arange(rows), chosen] = 9
    return {"logits": logits, "token_num": np.array([rows - 1], np.int32)}


def test_a_directory_of_paraformer_is_told_from_another_recogniser(paraformer):
    assert model_kind(Path(paraformer.dir)).model == "paraformer"
    assert model_kind(Path(paraformer.dir) / "model.onnx").model == "paraformer"


def test_the_number_of_tokens_is_the_graph_s_and_frames_are_stacked(paraformer, repo):
    paraformer.check()
    clip = next(iter(manifest_lines(repo / "data/clips/evaluation/manifest.jsonl", "data")))
    sample = paraformer.sample(clip, lambda path, rate: read_audio(path, rate, SampleRateMismatch.refuse, []))
    assert list(sample.inputs) == ["speech", "speech_lengths"]
    assert sample.inputs["speech"].shape[2] == 560
    assert sample.inputs["speech_lengths"].tolist() == [sample.inputs["speech"].shape[1]]
    outputs = paraformer.infer(sample, ModelSessions({"encoder": Path(paraformer.dir) / "model.onnx"}, 1).runner([0]))
    assert 2 < outputs["logits"].shape[1] == int(outputs["token_num"][0]) < sample.inputs["speech"].shape[1]
    assert len(paraformer.transcript(outputs)) == outputs["logits"].shape[1]


def test_a_transcript_has_every_row_up_to_the_end_whatever_the_count_says(paraformer):
    assert paraformer.transcript(told(4, [3, 4, 5, 6])) == "".join(TABLE[3:7])
    assert paraformer.transcript(told(4, [3, 4, 2, 6])) == "".join(TABLE[3:5])
    assert paraformer.transcript(told(3, [3, 1, 4])) == f"{TABLE[3]} <s> {TABLE[4]}"


@pytest.mark.parametrize(
    ("units", "text"),
    [
        (["你", "好"], "你好"),
        (["you@@", "r", "name"], "your name"),
        (["un@@", "lock@@", "ed", "了"], "unlocked 了"),
        (["我", "go@@", "去"], "我 go 去"),
        ([], ""),
    ],
)
def test_units_are_joined_as_the_client_joins_them(units, text):
    assert joined_units(units) == text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"without": ["lfr_window_shift"]}, r"has no lfr_window_shift, which sherpa-onnx reads"),
        ({"without": ["neg_mean"]}, r"has no neg_mean"),
        ({"inv_stddev": "1,1,1"}, r"inv_stddev of its metadata has 3 numbers; 7 frames of 80 bands need 560"),
        ({"vocab_size": 50}, r"has 44 tokens; .*vocab_size=50"),
        ({"table": [token.replace("</s>", "<end>") for token in TABLE]}, r"tokens\.txt has no token </s>"),
    ],
)
def test_what_the_client_would_end_for_is_an_error(tmp_path, changes, message):
    with pytest.raises(PipelineError, match=message):
        Paraformer("p", dir=str(write_paraformer(tmp_path / "p", **changes))).check()


def test_the_predictor_alone_stays_in_float(paraformer):
    """It counts the tokens and sums the frames with the same weights."""
    graph = onnx.load(f"{paraformer.dir}/model.onnx").graph
    layers = {node.name for node in graph.node if node.op_type in ("Conv", "MatMul")}
    fixed = shape_deciding_nodes(graph) & layers
    assert fixed >= PREDICTOR
    products = {name for name in layers - fixed if "linear" in name or "w_1" in name or "w_2" in name}
    assert len(products) > 10


def test_posteriors_of_another_number_of_tokens_are_aligned_and_silence_is_no_error():
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((5, 8)).astype(np.float32) * 4
    rows = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    none = rows[:0]
    assert posterior_kl_of_tokens(rows, rows) == pytest.approx(0)
    assert posterior_kl_of_tokens(rows, rows[[0, 1, 1, 2, 3, 4]]) == pytest.approx(0, abs=1e-6)
    assert posterior_kl_of_tokens(rows, rows[:4]) > 0.1
    assert posterior_kl_of_tokens(none, none) is None
    assert posterior_kl_of_tokens(rows, none) == pytest.approx(posterior_kl(rows, np.zeros_like(rows)))
    with pytest.raises(DataError, match="NaN"):
        posterior_kl_of_tokens(rows, rows * np.nan)
