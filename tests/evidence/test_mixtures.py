"""A mixture of experts against controlled pairs of runs that no file here holds and nothing was fitted on.

Megatron-Bridge publishes them with its guidance on overlapping expert traffic: Qwen3-30B-A3B, 16 H100 of two nodes,
bf16, 4,096 tokens, 1,024 sequences a step one by one, experts over all 16 chips, routing forced to balance. Plain
all-to-all takes 41.25 s without and 31.31 s with the overlap; a dispatch that crosses to a node once 24.71 and 20.99 s.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from serried.compiler import profile_for
from serried.fabric import read_fabric
from serried.planner import Machine, estimate_training, layouts_of
from serried.silicon import read_chip
from serried.software import read_stack
from serried.workload import Training, read_model

MEASURED_S = {("plain", False): 41.25, ("plain", True): 31.31, ("once_per_node", False): 24.71,
              ("once_per_node", True): 20.99}


@pytest.fixture(scope="module")
def predicted_s() -> dict[tuple[str, bool], float]:
    chip = read_chip("h100")
    stack = read_stack("megatron-bridge", chip.family)
    job = Training(model=read_model("qwen3-30b-a3b"), sequence_tokens=4096, global_batch_sequences=1024)
    rows = layouts_of([{"ep": 16, "sharding": 1, "overlap_data": True}])
    found = {}
    for dispatch, overlaps in MEASURED_S:
        facts = {**stack.facts, "expert_dispatch": dispatch, "overlap_expert": "across_nodes" if overlaps else "never"}
        machine = Machine(chip=chip, profile=profile_for(chip), fabric=read_fabric(chip.fabric), chip_count=16,
                          stack=dataclasses.replace(stack, facts=facts))
        found[dispatch, overlaps] = float(estimate_training(job, machine, rows).time_s[0])
    return found


def test_every_controlled_run_is_predicted_within_a_quarter(predicted_s: dict[tuple[str, bool], float]) -> None:
    error = np.log([predicted_s[key] / measured for key, measured in MEASURED_S.items()])
    assert np.abs(error).max() <= np.log(1.25)


@pytest.mark.parametrize("dispatch", ["plain", "once_per_node"])
def test_what_the_overlap_saves_is_predicted(predicted_s: dict[tuple[str, bool], float], dispatch: str) -> None:
    saved, measured = (times[dispatch, False] / times[dispatch, True] for times in (predicted_s, MEASURED_S))
    assert saved == pytest.approx(measured, rel=0.10)


def test_what_the_dispatcher_saves_is_predicted(predicted_s: dict[tuple[str, bool], float]) -> None:
    for overlaps in (False, True):
        saved, measured = (times["plain", overlaps] / times["once_per_node", overlaps]
                           for times in (predicted_s, MEASURED_S))
        assert saved == pytest.approx(measured, rel=0.10)
