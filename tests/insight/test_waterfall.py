"""The waterfall adds up, is deterministic, and its layers do what they say."""

import math
from dataclasses import replace

import numpy as np
import pytest

from serried.errors import BadInput
from serried.insight import LAYERS, gap_serving, gap_training, serving_machine
from serried.insight.game import COALITIONS, draw_stacks, stack_values
from serried.insight.serving_gap import ServingContest
from serried.insight.training_gap import TrainingContest, default_layout
from serried.planner import estimate_training, machine_of
from serried.serving import deployment, estimate_static
from serried.software import STACK_PARAMETERS, perfect_stack, read_stack, stack_for
from serried.topology.fitted import fitted_profile


@pytest.fixture(scope="module")
def waterfall(serving, fleet, rival):
    return gap_serving(serving, fleet, rival, draws=16)


@pytest.fixture(scope="module")
def training_waterfall(training, fleet, rival):
    return gap_training(training, fleet, rival, draws=8)


@pytest.mark.parametrize("kind", ["waterfall", "training_waterfall"])
def test_bars_add_up_exactly(kind, request):
    found = request.getfixturevalue(kind)
    assert [bar.layer for bar in found.bars] == list(LAYERS)
    for bars, gap in ((found.bars, found.gap_ln), (found.recoverable, found.recoverable_ln),
                      (found.closed, found.closed_ln)):
        assert math.fsum(bar.gap_ln.value for bar in bars) == pytest.approx(gap.value, abs=1e-12)
    assert math.fsum(bar.gap_s.value for bar in found.bars) == pytest.approx(
        found.fleet.time_s.value - found.rival.time_s.value, abs=1e-9)
    assert math.fsum(bar.percent for bar in found.bars) == pytest.approx(
        100.0 * (1.0 - found.rival.time_s.value / found.fleet.time_s.value), abs=1e-9)
    physical = found.physical
    assert physical.compute_ln + physical.memory_ln + physical.fabric_ln + physical.scale_ln == pytest.approx(
        physical.gap_ln, abs=1e-12)


@pytest.mark.parametrize("kind", ["waterfall", "training_waterfall"])
def test_intervals_hold_their_values_and_software_alone_leaves_silicon_alone(kind, request):
    found = request.getfixturevalue(kind)
    for bar in (*found.bars, *found.recoverable):
        assert bar.gap_ln.low <= bar.gap_ln.value <= bar.gap_ln.high
        assert bar.gap_s.low <= bar.gap_s.value <= bar.gap_s.high
    silicon = next(bar for bar in found.recoverable if bar.layer == "silicon")
    assert silicon.gap_ln.value == pytest.approx(0.0, abs=1e-12)
    assert found.recoverable_ln.value > 0
    assert [action.gain.value for action in found.actions] == sorted(
        (action.gain.value for action in found.actions), reverse=True)
    assert 1 <= len(found.actions) <= 3


def test_present_software_has_closed_something_on_the_same_silicon(waterfall):
    bars = {bar.layer: bar.gap_ln.value for bar in waterfall.closed}
    assert waterfall.closed_ln.value > 0
    assert bars["silicon"] == pytest.approx(0.0, abs=1e-12)
    assert bars["kernels"] > 0


def test_sides_are_what_the_estimators_say(waterfall, serving, fleet):
    contest = ServingContest(serving)
    end = contest.best(serving_machine(fleet), ("bf16",))
    rate = estimate_static(serving, end.machine, end.layout).output_tokens_per_s[0]
    assert waterfall.fleet.tokens_per_s.value == pytest.approx(rate, rel=1e-9)
    assert waterfall.gap_ln.value == pytest.approx(math.log(
        waterfall.rival.tokens_per_s_per_chip.value / waterfall.fleet.tokens_per_s_per_chip.value))
    assert sum(waterfall.fleet.time_by_cause_s.values()) == pytest.approx(waterfall.fleet.time_s.value)


def test_the_corners_of_the_game_are_the_two_ends(training, fleet, rival):
    contest = TrainingContest(training, fleet.chip_count)
    ends = tuple(contest.best(machine_of(pool), ("bf16",)) for pool in (fleet, rival))
    draws = tuple(draw_stacks(end.machine, 0, 0) for end in ends)
    corners = COALITIONS[[0, -1]]
    found = contest.game(ends)(corners, stack_values(draws, corners))[0]
    for time_s, end in zip(found, ends, strict=True):
        assert time_s == pytest.approx(estimate_training(training, end.machine, end.layout).time_s[0])


def test_same_seed_same_answer_other_seed_same_values(serving, fleet, rival, waterfall):
    again = gap_serving(serving, fleet, rival, draws=16)
    assert again == waterfall or repr(again) == repr(waterfall)
    other = gap_serving(serving, fleet, rival, draws=16, seed=5)
    assert [bar.gap_ln.value for bar in other.bars] == pytest.approx([bar.gap_ln.value for bar in waterfall.bars])
    assert other.gap_ln.low != waterfall.gap_ln.low


def test_a_fleet_against_itself_has_no_gap(serving, rival):
    found = gap_serving(serving, rival, rival, draws=8)
    assert found.gap_ln.value == pytest.approx(0.0, abs=1e-12)
    assert all(bar.gap_ln.value == pytest.approx(0.0, abs=1e-12) for bar in found.bars)
    assert found.parity.per_chip.value == pytest.approx(1.0)
    assert found.parity.chips_for_parity == rival.chip_count
    price = rival.chip.need("price")
    assert found.parity.break_even_price_usd == pytest.approx(price, rel=1e-9)


def test_only_the_layer_that_differs_has_a_bar(serving, rival):
    """The same chips under two stacks that differ in one host parameter: the whole gap is the host's."""
    vllm = read_stack("vllm", rival.chip.family)
    slow = replace(vllm, parameters={**vllm.parameters, "host_s_per_step": 10e-3})
    found = gap_serving(serving, rival, rival, stack=slow, rival_stack=vllm, draws=4)
    bars = {bar.layer: bar.gap_ln.value for bar in found.bars}
    assert found.gap_ln.value > 0.05
    assert bars["host"] == pytest.approx(found.gap_ln.value, rel=0.05)
    assert found.actions[0].parameter == "host_s_per_step"


def test_perfect_software_leaves_nothing_to_recover(serving, rival):
    fabric = replace(rival.fabric, profile=fitted_profile(rival.fabric.profile))
    fitted = replace(rival, fabric=fabric)
    best = gap_serving(serving, fitted, fitted, stack=perfect_stack(), rival_stack=perfect_stack(),
                       number_format="fp8", rival_number_format="fp8", draws=2)
    assert best.recoverable_ln.value == pytest.approx(0.0, abs=1e-9)
    assert best.actions == []


def test_draws_stay_legal_and_start_at_the_centre(fleet):
    machine = serving_machine(fleet)
    for name, values in draw_stacks(machine, 200, 3).items():
        assert values[0] == machine.stack[name]
        legal = STACK_PARAMETERS[name]
        assert (values >= min(legal.low, values[0]) - 1e-15).all()
        assert (values <= max(legal.high, values[0]) + 1e-15).all()
        if machine.stack.spreads[name] > 0 and legal.low < machine.stack[name] - machine.stack.spreads[name]:
            assert np.ptp(values) > 0, name


def test_what_people_start_with_is_no_faster_than_the_best(training, rival):
    machine = machine_of(rival, stack=stack_for(rival.chip.family))
    contest = TrainingContest(training, rival.chip_count)
    plain = default_layout(training, machine)
    start, best = (estimate_training(training, machine, layout).time_s[0]
                   for layout in (plain, contest.best(machine, ("bf16",)).layout))
    assert best <= start
    assert estimate_training(training, machine, plain).fits.all()


def test_formats_that_are_unknown_or_absent_are_refused_by_name(serving, training, fleet, rival):
    with pytest.raises(BadInput, match="fp8"):
        gap_serving(serving, fleet, rival, number_format="fp9")
    with pytest.raises(BadInput, match="zhenwu-810e"):
        gap_training(training, fleet, rival, number_format="fp8")


def test_a_narrow_format_counts_in_the_precision_layer(serving, fleet, rival):
    found = gap_serving(serving, fleet, rival, number_format="bf16", rival_number_format="fp8", draws=2)
    bars = {bar.layer: bar.gap_ln.value for bar in found.bars}
    assert bars["precision"] > 0.05


def test_given_and_default_layouts_are_kept(serving, training, fleet, rival):
    given = deployment(tp=2, replicas=4)
    found = gap_serving(serving, fleet, rival, layout=given, rival_layout="default", draws=2)
    assert found.fleet.layout["tp"] == 2
    assert gap_training(training, rival, rival, layout="default", draws=2).gap_ln.value >= -1e-9
