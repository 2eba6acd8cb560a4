"""Timing against a simulated clock: what is known exactly must be measured exactly."""

import itertools

import numpy as np
import pytest
import scipy.special

from pipeline.measure.benchmark_result import Percentiles, Speedup, Verdict
from pipeline.measure.paired_timing import Pair, Rounds, measure_pairs, percentiles_of, speedup_of, student, take_turns, warm_up
from pipeline.measure.session_rounds import timed_round


class SimulatedMachine:
    """A clock, and models whose runs move it on: slower from run to run, and at times interrupted."""

    def __init__(self, drift=0.0, noise=0.0, seed=0):
        self.now = 0.0
        self.drift = drift
        self.noise = noise
        self.rng = np.random.default_rng(seed)
        self.calls = []

    def clock(self):
        """Return the time, in seconds."""
        return self.now

    def model(self, name, seconds):
        """Return a model whose inference of sample k takes (k + 1) * seconds."""

        def run(sample):
            self.calls.append((name, sample))
            slowness = 1 + self.drift * self.now + self.noise * self.rng.exponential()
            self.now += seconds * (1 + sample) * slowness

        return run


def measured(machine, baseline_s, quantized_s, rounds=6, **settings):
    settings = {"min_pairs": 20, "min_seconds": 0.0, **settings}
    models = machine.model("baseline", baseline_s), machine.model("quantized", quantized_s)
    rng = np.random.default_rng(7)
    return [
        pair
        for index in range(rounds)
        for pair in measure_pairs(*models, 3, round_index=index, rng=rng, clock=machine.clock, **settings)
    ]


def test_a_model_that_is_exactly_twice_as_slow_is_measured_as_such_on_a_quiet_machine():
    speedup = speedup_of(measured(SimulatedMachine(), 0.010, 0.020))
    assert speedup.median == pytest.approx(0.5, rel=1e-9)
    assert (speedup.low, speedup.high) == pytest.approx((0.5, 0.5), rel=1e-9)
    assert speedup.verdict is Verdict.slower


def test_a_speedup_of_two_is_measured_within_two_percent_on_a_machine_that_slows_down_and_is_disturbed():
    machine = SimulatedMachine(drift=0.2, noise=0.05)
    pairs = measured(machine, 0.020, 0.010, min_pairs=40)
    times = [pair.baseline_ms for pair in pairs if pair.sample == 0]
    assert max(times) > 2 * min(times)  # the machine's drift is larger than what is measured
    speedup = speedup_of(pairs)
    assert speedup.median == pytest.approx(2.0, rel=0.02)
    assert speedup.low < 2.0 < speedup.high
    assert speedup.verdict is Verdict.faster


def test_a_model_against_itself_is_the_same_with_an_interval_without_width():
    speedup = speedup_of([Pair(k % 3, 0, 10.0 + k, 10.0 + k) for k in range(30)])
    assert speedup == Speedup(1.0, 1.0, 1.0)
    assert speedup.verdict is Verdict.same


@pytest.mark.parametrize("luck", [0.0, 0.01])
def test_the_interval_of_a_model_against_itself_holds_1_in_about_19_of_20_simulated_benchmarks(luck):
    rng = np.random.default_rng(1)
    held = 0
    for trial in range(120):
        pairs = []
        for index in range(6):
            ratios = np.exp(rng.normal(0, luck) + rng.normal(0, 0.03, 50))
            pairs += [Pair(index, 0, float(ratio), 1.0) for ratio in ratios]
        speedup = speedup_of(pairs, seed=trial, resamples=200)
        held += speedup.verdict is Verdict.same
    assert held >= 110


def simulated(rng, luck, most, interval, ratio=1.0):
    """Return the pairs of a benchmark whose rounds have luck of their own, and after how many rounds it ended."""
    rounds, pairs = Rounds(most, interval), []
    for index in range(most):
        ratios = ratio * np.exp(rng.normal(0, luck) + rng.normal(0, 0.01, 9))
        pairs += [Pair(index, 0, float(one), 1.0) for one in ratios]
        if rounds.are_enough(pairs, index + 1):
            return pairs, index + 1
    raise AssertionError("the last round is enough")


@pytest.mark.parametrize(("luck", "most"), [(0.01, 6), (0.02, 20)])
def test_a_model_against_itself_is_the_same_in_19_of_20_where_the_width_of_the_interval_decides_when_to_end(luck, most):
    """By the width alone, and not by what it holds: with 3 %, from rounds that are alike to such as never end early."""
    rng = np.random.default_rng(most)
    held, ended = 0, []
    for trial in range(100):
        pairs, done = simulated(rng, luck, most, 0.03)
        ended.append(done)
        speedup = speedup_of(pairs, seed=trial, resamples=200, widened=Rounds(most, 0.03).widened)
        held += speedup.verdict is Verdict.same
        if done < most:
            assert speedup.high - speedup.low < 0.05
    assert held >= 95
    assert min(ended) >= Rounds(most, 0.03).least


def test_on_a_quiet_machine_it_ends_after_the_least_number_of_rounds_and_on_a_noisy_one_after_all():
    rng = np.random.default_rng(0)
    assert [simulated(rng, 0.001, most, 0.03)[1] for most in (6, 20)] == [4, 6]
    assert [simulated(rng, 0.2, most, 0.03)[1] for most in (6, 20)] == [6, 20]


def test_a_clear_difference_does_not_end_it():
    rng = np.random.default_rng(0)
    assert simulated(rng, 0.1, 20, 0.03, ratio=3.0)[1] == 20


def test_without_a_width_all_rounds_are_timed_and_the_interval_is_as_it_was():
    assert (Rounds(20).least, Rounds(20).widened) == (20, 1.0)
    assert simulated(np.random.default_rng(0), 0.0001, 20, 0.0)[1] == 20
    assert Rounds(2, 0.03).widened == 1.0, "nothing is looked at before the last of two rounds"


@pytest.mark.parametrize("free", [3, 5, 9, 19, 100])
def test_students_quantile_is_scipys(free):
    assert student(free) == pytest.approx(scipy.special.stdtrit(free, 0.975), rel=2e-3)


def test_sessions_with_luck_of_their_own_widen_the_interval():
    def benchmark(luck):
        ratios = np.exp(np.random.default_rng(0).normal(0, 0.01, (6, 40)))
        lucky = ratios * np.exp(luck * np.array([-1, 1, -1, 1, -1, 1]))[:, None]
        return speedup_of([Pair(r, 0, float(lucky[r, k]), 1.0) for r in range(6) for k in range(40)])

    without, with_luck = benchmark(0.0), benchmark(0.02)
    assert with_luck.high - with_luck.low > 3 * (without.high - without.low)


def test_the_verdict_is_what_the_interval_allows():
    assert Speedup(1.5, 1.4, 1.6).verdict is Verdict.faster
    assert Speedup(0.8, 0.7, 0.9).verdict is Verdict.slower
    assert Speedup(1.1, 1.0, 1.2).verdict is Verdict.same
    assert Speedup(1.05, 0.9, 1.2).verdict is Verdict.same


def test_the_seed_decides_the_interval():
    pairs = measured(SimulatedMachine(noise=0.2), 0.010, 0.010)
    assert speedup_of(pairs, seed=1) == speedup_of(pairs, seed=1)
    assert speedup_of(pairs, seed=1) != speedup_of(pairs, seed=2)


@pytest.mark.parametrize(
    ("min_pairs", "min_seconds", "pairs"),
    [(10, 0.0, 12), (0, 1.2, 30), (60, 1.2, 60)],  # a block of three samples takes 0.12 s
)
def test_timing_goes_on_for_a_number_of_pairs_and_a_number_of_seconds(min_pairs, min_seconds, pairs):
    machine = SimulatedMachine()
    found = measured(machine, 0.010, 0.010, rounds=1, min_pairs=min_pairs, min_seconds=min_seconds - 1e-9)
    assert len(found) == pairs


def test_pairs_are_interleaved_in_random_order_and_lengths_weigh_the_same():
    machine = SimulatedMachine()
    pairs = measured(machine, 0.001, 0.001, rounds=1, min_pairs=300)
    assert {sample: sum(pair.sample == sample for pair in pairs) for sample in range(3)} == {0: 100, 1: 100, 2: 100}
    first = [name for name, _ in machine.calls[::2]]
    assert 100 < first.count("baseline") < 200
    for (name, sample), (other, same_sample) in zip(machine.calls[::2], machine.calls[1::2], strict=True):
        assert {name, other} == {"baseline", "quantized"}
        assert sample == same_sample


def test_warm_up_ends_when_nothing_gets_faster_any_more():
    machine = SimulatedMachine()
    slow_starts = iter([5.0, 3.0, 2.0, 1.5])

    def warming(_sample):
        machine.now += next(slow_starts, 1.0)

    assert warm_up([warming], 1, max_seconds=100.0, clock=machine.clock)
    assert machine.now == 5.0 + 3.0 + 2.0 + 1.5 + 4 * 1.0  # four sweeps at full speed show that it is reached


def test_warm_up_is_bounded_in_time_and_in_sweeps():
    machine = SimulatedMachine()

    def ever_faster(_sample):
        machine.now += 1.0 * 0.8 ** len(machine.calls)
        machine.calls.append(None)

    assert not warm_up([ever_faster], 1, max_seconds=3.0, clock=machine.clock)
    assert machine.now < 4.0
    machine.calls.clear()
    assert not warm_up([ever_faster], 1, max_seconds=100.0, max_sweeps=6, clock=machine.clock)
    assert len(machine.calls) == 6


def test_a_slow_model_is_warm_when_its_second_sweep_is_no_faster():
    machine = SimulatedMachine()
    assert warm_up([machine.model("slow", 10.0)], 1, max_seconds=1.0, clock=machine.clock)
    assert len(machine.calls) == 2


def test_percentiles_of_known_times():
    assert percentiles_of([float(k) for k in range(101)]) == Percentiles(50.0, 90.0, 99.0)


def test_every_model_runs_a_sample_before_the_next_one_comes():
    machine = SimulatedMachine()
    runs = [machine.model(name, seconds) for name, seconds in (("a", 0.001), ("b", 0.002), ("c", 0.004))]
    blocks = itertools.repeat(range(2))
    turns = list(take_turns(runs, blocks, rng=np.random.default_rng(0), at_least=40, seconds=0.0, clock=machine.clock))
    assert [sample for sample, _ in turns] == [0, 1] * 20
    for sample, spent_ms in turns:
        assert spent_ms == pytest.approx([1.0 * (sample + 1), 2.0 * (sample + 1), 4.0 * (sample + 1)])
    orders = {tuple(name for name, _ in machine.calls[start : start + 3]) for start in range(0, len(machine.calls), 3)}
    assert orders == set(itertools.permutations("abc"))


def test_the_time_that_is_left_can_be_read_from_another_clock():
    machine = SimulatedMachine()
    seconds = iter(range(100))
    turns = take_turns(
        [machine.model("a", 1.0)], itertools.repeat([0]), rng=np.random.default_rng(0), at_least=1, seconds=5,
        clock=machine.clock, watch=lambda: next(seconds),
    )  # fmt: skip
    assert [spent_ms for _, spent_ms in turns] == [pytest.approx([1000.0])] * 5


def test_a_round_in_this_process_runs_all_graphs_on_the_same_samples(chains, noise):
    five, ten = chains
    turns = list(
        timed_round(
            [five, ten], [noise(30), noise(60)], itertools.repeat(range(2)), threads=1, order=[1, 0],
            rng=np.random.default_rng(0), at_least=6, seconds=0.0,
        )
    )  # fmt: skip
    assert len(turns) == 6
    assert all(len(spent_ms) == 2 and min(spent_ms) > 0 for spent_ms in turns)
