"""A streaming Zipformer: its encoder goes on from the states that it has left, and a greedy search over all chunks."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from pipeline.audio.kaldi_fbank import kaldi_fbank
from pipeline.config.choices import SampleRateMismatch
from pipeline.data.audio_files import read_audio
from pipeline.errors import ConfigError, ModelError
from pipeline.graph.source_graph import load_graph
from pipeline.models.model_kind import model_kind
from pipeline.models.model_sessions import Call, ModelSessions
from pipeline.models.streaming_zipformer import StreamingZipformer
from tests.streaming_graphs import CHUNK, HOP, LAYERS, PER_STEP, write_streaming, write_streaming_ctc


def opened(folder, **settings):
    model = StreamingZipformer("s", dir=str(folder), **settings)
    model.check()
    graphs = {name: load_graph(name, path) for name, path in model.graphs.items()}
    return model.with_graphs(graphs), ModelSessions(graphs, 1)


@pytest.fixture(scope="module")
def heard(tmp_path_factory, repo):
    """Return the model, a clip's sample, what all graphs were given for it, and what came out."""
    model, sessions = opened(write_streaming(tmp_path_factory.mktemp("streaming")))
    audio = read_audio(repo / "data/clips/evaluation/e000.flac", 16_000, SampleRateMismatch.refuse, [])
    sample, calls = model.sample_of_audio("e000", audio), []
    return model, audio, sample, calls, model.infer(sample, sessions.runner([0], calls))


def of(calls, graph) -> list[Call]:
    return [call for call in calls if call.graph == graph]


def test_each_step_hears_the_next_frames_and_the_states_that_the_one_before_has_left(heard):
    model, audio, sample, calls, _ = heard
    frames = kaldi_fbank(np.concatenate([audio, np.zeros(int(0.66 * 16_000), np.float32)]), 16_000)
    encoder = of(calls, "encoder")
    # The client decodes while more frames are there than a chunk takes.
    assert len(encoder) == model.steps(sample) == 1 + (len(frames) - 1 - CHUNK) // HOP
    assert all(not array.any() for name, array in encoder[0].sample.inputs.items() if name != "x")
    for number, call in enumerate(encoder):
        np.testing.assert_array_equal(call.sample.inputs["x"][0], frames[number * HOP : number * HOP + CHUNK])
    for before, after in pairwise(encoder):
        states = [name for name in after.sample.inputs if name != "x"]
        assert len(states) == 6 * LAYERS + 2
        for name in states:
            np.testing.assert_array_equal(after.sample.inputs[name], before.outputs[f"new_{name}"])
    assert encoder[-1].outputs["new_processed_lens"] == 16 * len(encoder)


def test_the_search_asks_each_frame_once_and_looks_back_at_what_it_has_said(heard):
    _, _, _, calls, outputs = heard
    frames = outputs["encoder_out"].reshape(-1, 24)
    asked = [call.sample.inputs["encoder_out"][0] for call in of(calls, "joiner")]
    np.testing.assert_array_equal(asked, frames)
    assert len(frames) == PER_STEP * len(of(calls, "encoder"))
    best = [int(call.outputs["logit"].argmax()) for call in of(calls, "joiner")]
    assert outputs["tokens"].tolist() == [token for token in best if token]
    assert len(set(outputs["tokens"].tolist())) > 3
    said = [-1, 0, *outputs["tokens"].tolist()]
    assert outputs["path"].tolist() == best
    np.testing.assert_array_equal(outputs["logits"], [call.outputs["logit"][0] for call in of(calls, "joiner")])
    assert [call.sample.inputs["y"].tolist() for call in of(calls, "decoder")] == [[list(pair)] for pair in pairwise(said)]


def test_another_model_is_compared_after_what_fp32_has_said_at_each_frame(heard):
    model, _, sample, _, outputs = heard
    _, sessions = opened(Path(model.dir))
    again = model.given_decisions(sample, sessions.runner([0]), outputs)
    np.testing.assert_array_equal(again["logits"], outputs["logits"])
    assert model.posteriors(outputs).shape == (len(outputs["path"]), 28)
    calls, silent = [], np.zeros_like(outputs["path"])
    model.given_decisions(sample, sessions.runner([0], calls), {**outputs, "path": silent})
    assert [call.sample.inputs["y"].tolist() for call in of(calls, "decoder")] == [[[-1, 0]]]


def test_a_step_is_as_long_as_what_it_goes_on_by_and_the_other_graphs_hear_nothing(heard):
    model, _, _, calls, _ = heard
    seconds = {graph: model.audio_seconds(of(calls, graph)[0].sample, {}) for graph in ("encoder", "decoder", "joiner")}
    assert seconds == {"encoder": 0.32, "decoder": None, "joiner": None}


def test_silence_behind_a_recording_is_as_long_as_it_is_set(tmp_path, heard):
    _, audio, _, _, _ = heard
    folder = write_streaming(tmp_path / "s")
    frames = [StreamingZipformer("s", dir=str(folder), tail_s=tail).sample_of_audio("a", audio).size for tail in (0.0, 1.0)]
    assert frames[1] - frames[0] == 80 * 100
    with pytest.raises(ConfigError, match=r"model\.tail_s: -1"):
        StreamingZipformer("s", dir=str(folder), tail_s=-1).check()


def test_a_ctc_model_is_one_graph_whose_best_tokens_are_merged(tmp_path, repo):
    folder = write_streaming_ctc(tmp_path / "ctc")
    for place, key in ((folder, "model.dir"), (folder / "ctc-small.onnx", "model.path")):
        kind = model_kind(place)
        assert (kind.model, kind.key, kind.place) == ("streaming_zipformer", key, place)
    model, sessions = opened(folder)
    assert list(model.graphs) == ["encoder"]
    audio = read_audio(repo / "data/clips/evaluation/e000.flac", 16_000, SampleRateMismatch.refuse, [])
    outputs = model.infer(model.sample_of_audio("e000", audio), sessions.runner([0]))
    best = outputs["log_probs"].reshape(-1, 24).argmax(axis=1)
    merged = [token for before, token in pairwise([0, *best.tolist()]) if token not in (0, before)]
    assert outputs["tokens"].tolist() == merged


def test_beside_an_encoder_that_is_named_lie_its_decoder_and_its_joiner(tmp_path):
    folder = write_streaming(tmp_path / "s")
    named = StreamingZipformer("s", path=str(folder / "encoder.onnx"))
    assert named.graphs == StreamingZipformer("s", dir=str(folder)).graphs
    assert list(named.graphs) == ["encoder", "decoder", "joiner"]
    (folder / "joiner.onnx").unlink()
    with pytest.raises(ModelError, match="has no joiner"):
        _ = StreamingZipformer("s", path=str(folder / "encoder.onnx")).graphs


def test_the_recogniser_that_ships_hears_as_many_words_with_integers(run_quickly):
    run = run_quickly(
        "model=streaming_zipformer", "mode=dynamic", "stages=[load,quantize,evaluate]", "evaluation.samples=16",
        "evaluation.silent_clips=0", "evaluation.node_samples=0",
    ).succeeded()  # fmt: skip
    assert {artifact["graph"] for artifact in run.report["artifacts"]} == {"encoder", "joiner"}
    found = run.report["evaluation"]["metrics"]
    words, left_out = found["wer_percent"], found["deletion_percent"]
    assert left_out["baseline"] <= words["baseline"] < 40.0
    assert words["quantized"] < words["baseline"] + 5.0
    assert left_out["delta_interval"] is not None


def test_a_directory_of_a_streaming_model_is_told_from_one_that_hears_all_at_once(tmp_path):
    folder = write_streaming(tmp_path / "s")
    for place in (folder, folder / "encoder.onnx"):
        assert (model_kind(place).model, model_kind(place).place) == ("streaming_zipformer", folder)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"model_type": "zipformer"}, r"model_type='zipformer'; this adapter runs zipformer2"),
        ({"T": None}, r"its metadata has no T"),
        ({"decode_chunk_len": 45}, r"T=45 and decode_chunk_len=45"),
        ({"T": 77}, r"'x' is of shape \(\?, 45, 80\).*\(1, 77, 80\)"),
        ({"num_heads": "2,4"}, r"'cached_key_1' is of shape \(16, \?, 16\).*\(16, 1, 32\)"),
        ({"num_encoder_layers": "1,2"}, r"takes 15 inputs and gives 15 outputs.*gives it 21"),
        ({"encoder_dims": "16"}, r"encoder_dims=16, .*different numbers of stacks"),
        ({"left_context_len": "32,many"}, r"left_context_len='32,many', which are no numbers"),
    ],
)
def test_what_the_client_would_end_its_process_for_is_refused(tmp_path, metadata, message):
    folder = write_streaming(tmp_path / "s", **metadata)
    with pytest.raises(ModelError, match=message):
        StreamingZipformer("s", dir=str(folder)).check()


def test_a_token_table_of_another_model_is_refused(tmp_path):
    folder = write_streaming(tmp_path / "s")
    table = (folder / "tokens.txt").read_text(encoding="utf-8").splitlines()
    (folder / "tokens.txt").write_text("\n".join(table[:-1]) + "\n", encoding="utf-8")
    with pytest.raises(ModelError, match=r"joiner\.onnx has 28 classes, but its tokens\.txt has 27"):
        StreamingZipformer("s", dir=str(folder)).check()
