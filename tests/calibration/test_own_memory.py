"""Kernels that only move bytes, and attention's backward, fitted on rows that are made from known parameters."""

import dataclasses

import numpy as np
import pytest

from serried.calibration.own import fit_own_attention
from serried.calibration.own_memory import fit_own_backward, fit_own_memory
from serried.compiler import attention_backward_time_s, attention_shape, memory_bound_time_s, profile_for
from serried.errors import BadInput
from serried.silicon import read_chip


@pytest.fixture(scope="module")
def chip():
    return read_chip("a100")


def written(path, header, rows):
    path.write_text("\n".join([header, *(",".join(str(cell) for cell in row) for row in rows)]) + "\n",
                    encoding="utf-8")
    return path


def test_the_law_behind_the_rows_is_found(chip, tmp_path):
    base = profile_for(chip)
    truth = dataclasses.replace(base.parameters("memory_bound", "bf16"), hbm_ratio=0.6, cache_ratio=3.0, launch_s=9e-6)
    sizes = [4.0**power for power in range(7, 15)]
    rows = [("copy", moved, moved, kernels, 1e6 * float(memory_bound_time_s(
        np.array(moved), np.array(moved), chip=chip, parameters=truth, kernel_count=kernels)))
        for moved in sizes for kernels in (1, 3)]
    path = written(tmp_path / "memory.csv", "name,read_bytes,write_bytes,kernels,time_us", rows)
    fit = fit_own_memory(path, chip, base)
    assert fit.spread < 0.02
    found = fit.table[0]
    assert found.hbm_ratio == pytest.approx(truth.hbm_ratio, rel=0.05)
    assert found.launch_s == pytest.approx(truth.launch_s, rel=0.05)
    assert fit.before_s[0] != pytest.approx(fit.predicted_s[0], rel=0.2)


@pytest.mark.parametrize(("header", "cell", "field"), [
    ("name,read_bytes,write_bytes,time_us", "1", "header"),
    ("name,read_bytes,write_bytes,kernels,time_us", "-1", "row 2, read_bytes"),
    ("name,read_bytes,write_bytes,kernels,time_us", "many", "row 2, read_bytes"),
])
def test_what_is_wrong_is_named(chip, tmp_path, header, cell, field):
    path = written(tmp_path / "memory.csv", header, [("copy", cell, 1, 1, 1)[:header.count(",") + 1]] * 9)
    with pytest.raises(BadInput) as caught:
        fit_own_memory(path, chip, profile_for(chip))
    assert caught.value.field == field


def test_too_few_rows_are_refused(chip, tmp_path):
    path = written(tmp_path / "memory.csv", "name,read_bytes,write_bytes,kernels,time_us", [("copy", 1, 1, 1, 1)] * 3)
    with pytest.raises(BadInput, match="at least"):
        fit_own_memory(path, chip, profile_for(chip))


def test_gradients_of_attention_are_fitted_apart(chip, tmp_path):
    base = profile_for(chip)
    forward = base.parameters("attention", "bf16")
    truth = dataclasses.replace(base.parameters("attention_backward", "bf16"), rate_ratio=0.3, launch_s=6e-5)
    shapes = [(batch, tokens, 16, 4, 128) for batch in (1, 2, 8) for tokens in (256, 1024, 2048, 4096)]
    columns = attention_shape(**dict(zip(("sequences", "query_tokens", "heads", "kv_heads", "head_dim"),
                                         np.array(shapes, dtype=float).T, strict=True)),
                              context_tokens=np.array([shape[1] for shape in shapes], dtype=float))
    time_s = attention_backward_time_s(columns, chip=chip, parameters=forward, backward=truth)
    header = "batch_size,isl,num_heads,num_key_value_heads,head_dim,attn_dtype,kv_cache_dtype,step,phase,time_us"
    rows = [(*shape, "bfloat16", "bfloat16", 0, phase, 1e6 * one * (1 if phase == "backward" else 0.4))
            for shape, one in zip(shapes, time_s, strict=True) for phase in ("forward", "backward")]
    path = written(tmp_path / "attention.csv", header, rows + [row for row in rows if row[8] == "forward"])
    fit = fit_own_backward(path, chip, base, None)
    assert fit.subject == "attention_backward.bf16"
    assert len(fit.labels) == len(shapes)
    assert fit.spread < 0.03
    assert fit.table[0].rate_ratio == pytest.approx(truth.rate_ratio, rel=0.1)
    assert len(fit_own_attention(path, chip, base)["attention", "bf16"].labels) == 2 * len(shapes)


def test_a_table_without_gradients_has_none(chip, tmp_path):
    header = "batch_size,isl,num_heads,num_key_value_heads,head_dim,time_us"
    path = written(tmp_path / "attention.csv", header, [(1, 1024, 16, 4, 128, 100)] * 9)
    assert fit_own_backward(path, chip, profile_for(chip), None) is None
