from dataclasses import replace

import numpy as np
import pytest

from serried.errors import NoAnswer
from serried.serving import (
    LEGALITY,
    default_deployment,
    deployment,
    deployment_space,
    estimate_static,
    search_static,
)
from serried.serving.legality import broken_rule
from serried.serving.memory import cache_bytes_per_request, largest_batch, weight_bytes
from serried.workload import parameters, read_model
from serried.workload.spec import Serving


def test_search_is_the_maximum_of_the_whole_space(job, machine):
    pool = machine("h100", 8)
    rows = deployment_space(job, pool)
    rates = estimate_static(job, pool, rows).output_tokens_per_s[largest_batch(job, pool, rows) >= 1]
    found = search_static(job, pool, top=3)
    assert found.estimate.output_tokens_per_s[0] == pytest.approx(rates.max())
    assert found.evaluated == len(rows)
    assert (np.diff(found.estimate.output_tokens_per_s) <= 0).all()


def test_every_rule_bites_and_the_space_breaks_none(job, machine):
    pool = machine("h100", 8)
    assert not any(broken_rule(job, pool, deployment_space(job, pool)))
    bad = {"chips": deployment(tp=2), "heads": deployment(tp=3), "experts": deployment(tp=8, ep=2),
           "attention_dp": deployment(tp=2, attention_dp=4), "stages": deployment(pp=8),
           "tensor domain": deployment(tp=64), "requests": deployment(replicas=8)}
    assert set(bad) == {rule.name for rule in LEGALITY}
    shallow = replace(job, model=replace(job.model, blocks=(replace(job.model.blocks[0], count=4),)), concurrency=4)
    for rule in LEGALITY:
        assert not rule.holds(shallow, pool, bad[rule.name]).any(), rule.name
        assert rule.sentence.endswith(".")


def test_mixtures_share_experts_between_groups(machine):
    job = Serving(model=read_model("qwen3-30b-a3b"), input_tokens=512, output_tokens=128, concurrency=64)
    rows = deployment_space(job, machine("h100", 8))
    assert (rows.attention_dp > 1).any()
    assert (rows.ep[rows.attention_dp > 1] > 1).all()
    assert estimate_static(job, machine("h100", 8), rows).fits.any()


def test_weights_of_one_chip_are_all_parameters(job):
    counted = parameters(job.model)
    assert weight_bytes(job.model, deployment())[0] == pytest.approx(2.0 * counted.total, rel=1e-3)
    assert weight_bytes(job.model, deployment(tp=8))[0] == pytest.approx(counted.total / 4, rel=2e-3)


def test_cache_by_hand():
    """Qwen3-32B: 64 layers x 8 key-value heads x 2 x 128 x 2 bytes = 262,144 bytes a token; tp = 8 holds an eighth."""
    job = Serving(model=read_model("qwen3-32b"), input_tokens=512, output_tokens=128, concurrency=1)
    assert cache_bytes_per_request(job, deployment())[0] == pytest.approx(640 * 262144)
    assert cache_bytes_per_request(job, deployment(tp=8))[0] == pytest.approx(640 * 262144 / 8)
    assert cache_bytes_per_request(job, deployment(cache_format="fp8"))[0] == pytest.approx(640 * 262144 / 2)


def test_nothing_fits_says_what_binds_and_what_would(job, machine):
    big = replace(job, model=read_model("llama-3.1-405b"))
    with pytest.raises(NoAnswer, match="weights") as caught:
        search_static(big, machine("h100", 8))
    assert caught.value.binding == "weights"
    assert "16 chips" in str(caught.value)
    assert caught.value.exit_code == 1
    assert search_static(big, machine("h100", 16)).fitting > 0


def test_the_default_is_legal_fits_and_is_no_better_than_the_best(job, machine):
    pool = machine("h100", 8)
    plain = default_deployment(job, pool)
    assert broken_rule(job, pool, plain) == [None]
    best = search_static(job, pool, top=1).estimate.output_tokens_per_s[0]
    assert estimate_static(job, pool, plain).output_tokens_per_s[0] <= best
