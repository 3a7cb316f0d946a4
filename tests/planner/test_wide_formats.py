"""Recipes of 4-byte numbers: what lies between operators, crosses wires and stays for backward is twice as wide."""

import dataclasses

import numpy as np
import pytest

from serried.compiler import operator_time_s, profile_for
from serried.planner import estimate_training, layouts_of
from serried.silicon import read_chip
from serried.workload.spec import Elementwise, Gemm
from tests.planner.cases import job, machine


def wide_machine():
    """A chip whose engines are as fast in 4-byte numbers as in 2-byte ones, so that only widths differ."""
    found = machine()
    peak = dataclasses.replace(found.chip.figures["matrix_peak.bf16"], status="assumed")
    return dataclasses.replace(found, chip=dataclasses.replace(
        found.chip, figures={**found.chip.figures, "matrix_peak.fp32": peak}))


def both(**columns):
    return layouts_of([{"number_format": name, "micro_batch": 1, **columns} for name in ("bf16", "fp32")])


def test_wider_numbers_move_twice_the_bytes():
    estimate = estimate_training(job(), wide_machine(), both(sharding=3))
    for cause in ("memory_bound", "data_exposed"):
        narrow_s, wide_s = estimate.time_by_cause_s[cause]
        assert wide_s > narrow_s, cause
    narrow_bytes, wide_bytes = estimate.memory_by_cause_bytes["activations"]
    assert wide_bytes == pytest.approx(2 * narrow_bytes, rel=0.05)


def test_formats_of_one_width_agree_with_a_mixed_table():
    """The width is a number where all rows agree and a column else: both ways give the same seconds."""
    mixed = estimate_training(job(), wide_machine(), both(pp=2))
    for row in range(2):
        alone = estimate_training(job(), wide_machine(), both(pp=2).take(np.array([row])))
        assert alone.time_s[0] == pytest.approx(mixed.time_s[row], rel=1e-12)


def test_the_head_keeps_the_width_of_a_wide_recipe():
    """`high_precision` lifts a narrow recipe to 16 bits; it does not lower a wide one."""
    chip = read_chip("a100")
    profile = profile_for(chip)
    head = Gemm(name="head.logits", m=np.array(4096.0), n=np.array(32000.0), k=np.array(4096.0), high_precision=True)
    plain = dataclasses.replace(head, high_precision=False)
    wide, narrow = (operator_time_s(head, chip=chip, profile=profile, number_format=name) for name in ("tf32", "bf16"))
    assert wide > 1.5 * narrow
    assert wide == operator_time_s(plain, chip=chip, profile=profile, number_format="tf32")


def test_bytes_alone_decide_a_kernel_that_only_moves_them():
    chip = read_chip("a100")
    moved = Elementwise(name="norm.mlp", read_bytes=np.array(1e8), write_bytes=np.array(1e8))
    seconds = {name: float(operator_time_s(moved, chip=chip, profile=profile_for(chip), number_format=name))
               for name in ("bf16", "fp32")}
    assert seconds["bf16"] == seconds["fp32"]
