"""Parts of runs, made once: what is found is what was made."""

import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from pipeline.cache.cache_key import key_of
from pipeline.cache.current_cache import CacheConfig, using
from pipeline.cache.kinds import KINDS, SAMPLES
from pipeline.config.compose import register_schemas, to_run_config
from pipeline.graph.prepare import prepare
from pipeline.measure.rewrite_gain import Gain
from pipeline.optimize import engine
from pipeline.sample import Sample

MISH = "g (float[n] x) => (float[n] y) { s = Softplus(x) t = Tanh(s) p = Pow(t, two) y = Mul(x, p) }"


@pytest.fixture
def cache(tmp_path):
    with using(CacheConfig(dir=str(tmp_path / "cache"))) as cache:
        yield cache


def test_a_prepared_graph_is_found_as_it_was_made(cache, source_of, conv_net):
    source = source_of(conv_net())
    first, second = (prepare(source, opset=None, needed_opset=21, preprocess=True) for _ in range(2))
    assert first == second
    assert first.notes
    assert (cache.used["prepared_graphs"].found, cache.used["prepared_graphs"].made) == (1, 1)


def test_rewrites_that_were_kept_are_not_timed_again(cache, build, monkeypatch):
    timed = []

    def measure(*_, **__):
        timed.append(1)
        return Gain(1.5, True)

    monkeypatch.setattr(engine, "measure_gain", measure)
    model, probe = build(MISH, two=np.array(2.0, np.float32)), [Sample("a", {"x": np.linspace(-5, 5, 64, dtype=np.float32)})]
    first = engine.apply(model, probe)
    times = len(timed)
    second = engine.apply(model, probe)
    assert first == second
    assert len(second.applied) == 2
    assert len(timed) == times > 0
    engine.apply(model, probe, threads=2)
    assert len(timed) == 2 * times


def test_rewrites_that_there_was_no_time_for_are_tried_again(cache, build, monkeypatch):
    monkeypatch.setattr(engine, "measure_gain", lambda *_, **__: Gain(1.5, True))
    model, probe = build(MISH, two=np.array(2.0, np.float32)), [Sample("a", {"x": np.linspace(-5, 5, 64, dtype=np.float32)})]
    assert not engine.apply(model, probe, max_seconds=0).applied
    assert engine.apply(model, probe).applied


def test_of_every_model_it_is_known_whether_it_is_the_same(repo):
    names = {}
    register_schemas()
    with initialize_config_dir(str(repo / "conf"), version_base="1.3"):
        for path in (repo / "conf" / "model").glob("*.yaml"):
            given = ["model.path=m.onnx"] if path.stem == "onnx" else []
            config = to_run_config(compose("config", [f"model={path.stem}", *given]))
            names[path.stem] = key_of(SAMPLES, config.model, config.mode, config.evaluation, config.benchmark)
    assert len(set(names.values())) == len(names) > 5


def test_the_page_of_the_cache_names_every_kind(repo):
    page = (repo / "docs" / "cache.md").read_text(encoding="utf-8")
    assert [kind.name for kind in KINDS if f"`{kind.name}`" not in page] == []
