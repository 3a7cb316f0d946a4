"""The gap under a load in time."""

from dataclasses import replace

import numpy as np
import pytest

from serried.errors import NoAnswer
from serried.insight.traffic_gap import TRAFFIC_LAYERS, gap_traffic
from serried.serving.candidates import Space
from serried.serving.profile import read_engine
from tests.serving.search_cases import load, question

SMALL = Space(max_sequences=(0,), token_budgets=(0,), disaggregated=False)


def _ask(fleet, **changes):
    return question(fleet, "ttft=1s,tpot=30ms", model="Qwen3-8B", requests=load(20.0, 60), space=SMALL, **changes)


@pytest.fixture(scope="module")
def found():
    return gap_traffic(_ask("h20:2"), _ask("h100:2"))


def test_the_bars_add_up_to_the_gap(found):
    assert sum(bar.gap_ln for bar in found.bars) == pytest.approx(found.gap_ln)
    assert sum(bar.gap_s for bar in found.bars) == pytest.approx(found.fleet.chip_s - found.rival.chip_s)
    ratio = found.rival.goodput_tokens_per_s_per_chip / found.fleet.goodput_tokens_per_s_per_chip
    assert np.log(ratio) == pytest.approx(found.gap_ln)
    assert [bar.layer for bar in found.bars] == list(TRAFFIC_LAYERS[:-1])   # their engines batch alike


def test_silicon_is_what_differs_between_two_chips_of_one_family(found):
    bars = {bar.layer: bar.gap_ln for bar in found.bars}
    assert found.gap_ln > 0
    assert max(bars, key=lambda layer: abs(bars[layer])) == "silicon"


def test_a_side_has_no_gap_to_itself():
    mirror = gap_traffic(_ask("h100:2"), _ask("h100:2"))
    assert mirror.gap_ln == 0.0
    assert {bar.gap_ln for bar in mirror.bars} == {0.0}
    assert mirror.evaluated == 4   # silicon and layout are switched all the same; nothing else differs


def test_batching_is_a_layer_where_engines_differ():
    """The same engine but for seats: one request at a time serves less."""
    few = replace(_ask("h100:2"), profile=read_engine("vllm").with_settings(max_sequences=1))
    gap = gap_traffic(few, _ask("h100:2"))
    bars = {bar.layer: bar.gap_ln for bar in gap.bars}
    assert set(bars) == set(TRAFFIC_LAYERS)
    assert bars["kernels"] == bars["collectives"] == 0.0
    assert gap.gap_ln > 0


def test_objectives_that_no_rate_keeps_have_no_answer():
    with pytest.raises(NoAnswer):
        gap_traffic(question("h20:2", "tpot=1us", space=SMALL), question("h100:2", "tpot=1us", space=SMALL))
