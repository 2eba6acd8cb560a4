"""What the budget just excludes is reconstructed, and is the choice where it loses little enough then."""

from types import SimpleNamespace

import onnx
import pytest

from pipeline.evaluate.loss import Loss
from pipeline.mixed_precision import candidate_timing
from pipeline.mixed_precision.beyond_budget import BeyondBudget
from pipeline.mixed_precision.candidate_search import CandidateSearch
from pipeline.mixed_precision.candidate_timing import TrialContext, built
from pipeline.mixed_precision.candidates import Budget, best_of
from pipeline.mixed_precision.greedy_knapsack import Step
from pipeline.mixed_precision.precision_groups import Group
from pipeline.mixed_precision.time_limit import TimeLimit
from pipeline.quantize.plan import Precision
from pipeline.record.results import Reconstruction

NAMES = "abcdefgh"
GROUPS = [Group(name, "Conv", (name,), f"{name}_weight", (Precision.static_int8,)) for name in NAMES]
LOSS_OF_ONE = 0.03


@pytest.fixture
def choice(monkeypatch):
    """Return a function: what learning leaves of a loss -> (the choice of a search, how many graphs have learned).

    Each of eight groups loses as much as the others, and the speed-up grows with each; three are allowed.
    """

    def make(left, max_loss=0.1, speed_of=lambda integers: 1.0 + 0.1 * integers):
        def speeds(_, forms, *args, **kwargs):
            return {key: speed_of(len(form.doc_string.split())) for key, form in forms.items()}

        def build(choice, **_):
            return onnx.ModelProto(doc_string=" ".join(choice))  # stands for the graph

        def loss(model, samples=None, allowed=None):
            learned = left if model.producer_name == "learned" else 1.0
            return Loss(LOSS_OF_ONE * len(model.doc_string.split()) * learned, 0.0, samples=1)

        def learn(quantized, fitted, reference, share):
            assert fitted.doc_string == quantized.doc_string
            quantized.producer_name = "learned"
            shares.append(share)
            return Reconstruction([], {}, 1.0, False)

        monkeypatch.setattr(candidate_timing, "speedups", speeds)
        shares: list[float] = []
        builder = SimpleNamespace(groups=GROUPS, build=build, fitted=build, rounding=True, model=onnx.ModelProto())
        evaluator = SimpleNamespace(loss=loss, items=[None])
        trials = TrialContext(onnx.ModelProto(), 1000, builder, evaluator, [], 1, (), TimeLimit(float("inf")))
        budget = Budget("log_mel_l1", max_loss=max_loss)
        found = CandidateSearch(trials, budget)
        found.measure_wholes()
        paths = [[Step(group.name, Precision.static_int8, 1.0, LOSS_OF_ONE) for group in GROUPS]]
        found.run(paths)
        beyond = BeyondBudget(found, trials, budget, learn)
        beyond.run(paths)
        best, met = best_of(found.candidates, budget)
        assert met
        assert (best.learned is not None) == (best.label in beyond.learned)
        return SimpleNamespace(best=best, shares=shares, graph=built(builder, best))

    return make


def test_what_learning_makes_good_enough_is_chosen_and_is_as_fast_as_it_was(choice):
    found = choice(0.6)
    assert len(found.best.choice) == 5
    assert found.best.loss == pytest.approx(0.6 * 5 * LOSS_OF_ONE)
    assert found.best.speedup == pytest.approx(1.5)
    assert found.graph.producer_name == "learned"
    assert len(found.shares) == 1


def test_the_second_trial_is_chosen_by_what_the_first_has_taken_back(choice):
    found = choice(0.8)
    assert len(found.best.choice) == 4
    assert found.graph.producer_name == "learned"
    assert found.shares == [0.5, 0.5]


def test_where_learning_takes_back_too_little_the_choice_itself_learns(choice):
    found = choice(0.99)
    assert len(found.best.choice) == 3
    assert found.best.loss == pytest.approx(0.99 * 3 * LOSS_OF_ONE)
    assert found.shares[-1] == 1.0


def test_what_has_learned_to_be_worse_is_not_chosen(choice):
    found = choice(1.3)
    assert len(found.best.choice) == 3
    assert found.graph.producer_name == ""


def test_where_more_integers_are_no_faster_the_choice_learns_to_lose_less(choice):
    found = choice(0.5, speed_of=lambda integers: 1.0 + 0.1 * min(integers, 3))
    assert len(found.best.choice) == 3
    assert found.best.loss == pytest.approx(0.5 * 3 * LOSS_OF_ONE)
    assert found.shares == [1.0]
