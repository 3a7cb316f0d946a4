"""Eight real processes on gloo run every algorithm, and every element is right."""

import os
from pathlib import Path

import pytest

from serried.errors import BadInput
from serried.executor import rank_programs, run_schedule, run_schedules
from serried.weave import ALGORITHMS, stock_schedule, synthesise
from tests.laws.source import ROOT
from tests.weave.test_synthesis import islands

TIERED = ("hierarchical", "rail_aligned", "two_level")
TOOL = Path(os.environ.get("SERRIED_TORCH_PYTHON", ROOT / ".venv-tools" / "bin" / "python"))


@pytest.fixture(scope="module")
def python():
    if not TOOL.exists():
        assert "SERRIED_TOOLS" not in os.environ, "`make tools` did not install PyTorch"
        pytest.skip("PyTorch is not installed here; `make tools` installs it")
    return str(TOOL)


def test_every_algorithm_runs_on_eight_processes(python):
    schedules = [stock_schedule(operation, algorithm, 8, chunks=2, tiers=(4, 2) if algorithm in TIERED else ())
                 for operation, known in ALGORITHMS.items() for algorithm in known if algorithm != "in_switch"]
    schedules += [synthesise(operation, islands(4), 1e6, grain=2).schedule
                  for operation in ("all_reduce", "all_gather", "reduce_scatter", "broadcast")]
    for schedule, outcome in zip(schedules, run_schedules(schedules, 40_000, python=python, repeats=1), strict=True):
        assert outcome.wrong == 0, schedule.name
        assert outcome.checked >= 10_000, schedule.name


def test_elements_cover_the_buffer_once():
    """Two equal chunks of ten elements: every step of a ring of two carries five."""
    schedule = stock_schedule("all_reduce", "ring", 2)
    program = rank_programs(schedule, 10)[0]
    assert program["memory"] == program["whole"] == 10
    assert program["input"] == program["output"] == [0, 10]
    lengths = [step[5] for lane in program["lanes"] for step in lane]
    assert lengths == [5] * 4


def test_switches_are_no_processes():
    with pytest.raises(BadInput, match="endpoints alone"):
        rank_programs(stock_schedule("all_reduce", "in_switch", 4), 16)


def test_a_python_without_torch_is_named():
    with pytest.raises(BadInput, match="PyTorch"):
        run_schedule(stock_schedule("all_reduce", "ring", 2), 64, python="/usr/bin/false")
