"""A stack is recovered from runs that it made; what runs cannot see stays where it was believed."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from serried.calibration.stack import PRIOR, fit_stack, prior_of
from serried.software import STACK_PARAMETERS
from serried.workload import Floats

CHANCE = np.random.default_rng(3)
GEMM_S, ATTENTION_S = CHANCE.uniform(0.1, 1, 60), CHANCE.uniform(0.01, 0.5, 60)
TRAFFIC_S = CHANCE.uniform(0.02, 0.6, 60)
FOLDS = [f"model {row % 10}" for row in range(60)]


def times_of(parameters: Mapping[str, float]) -> Floats:
    """A world in which only three of the eight parameters matter."""
    times: Floats = (GEMM_S / parameters["gemm_rate_ratio"] + ATTENTION_S / parameters["attention_rate_ratio"]
                     + TRAFFIC_S * parameters["unfused_fraction"])
    return times


TRUE = {name: belief.value for name, belief in PRIOR.items()} | {
    "gemm_rate_ratio": 0.75, "attention_rate_ratio": 0.5, "unfused_fraction": 0.9}


def test_the_parameters_that_made_the_runs_are_found() -> None:
    fit = fit_stack(times_of, times_of(TRUE), FOLDS, prior=PRIOR)
    for name in ("gemm_rate_ratio", "attention_rate_ratio", "unfused_fraction"):
        assert fit.parameters[name] == pytest.approx(TRUE[name], rel=0.03), name
    assert np.abs(fit.residual_R).max() < 0.01


def test_what_no_run_shows_stays_believed() -> None:
    fit = fit_stack(times_of, times_of(TRUE), FOLDS, prior=PRIOR)
    assert fit.parameters["jitter_per_doubling"] == pytest.approx(PRIOR["jitter_per_doubling"].value, abs=1e-4)
    assert fit.spreads["jitter_per_doubling"] > fit.spreads["gemm_rate_ratio"] * PRIOR["jitter_per_doubling"].deviation


def test_noise_widens_the_unseen_residuals_and_an_odd_run_does_not_bend_the_fit() -> None:
    measured = times_of(TRUE) * np.exp(CHANCE.normal(0, 0.05, 60))
    measured[7] *= 5
    fit = fit_stack(times_of, measured, FOLDS, prior=PRIOR)
    assert fit.parameters["gemm_rate_ratio"] == pytest.approx(0.75, rel=0.12)
    assert np.median(np.abs(fit.unseen_R)) >= 0.9 * np.median(np.abs(fit.residual_R))
    assert fit.residual_R[7] > 1.2


def test_a_single_run_barely_moves_the_belief() -> None:
    fit = fit_stack(lambda p: times_of(p)[:1], times_of(TRUE)[:1], FOLDS[:1], prior=PRIOR)
    for name, spec in ((name, STACK_PARAMETERS[name]) for name in PRIOR):
        assert spec.low <= fit.parameters[name] <= spec.high
        assert abs(fit.parameters[name] - PRIOR[name].value) <= 3 * PRIOR[name].deviation


def test_nothing_is_fitted_on_nothing() -> None:
    with pytest.raises(ValueError, match="at least one run"):
        fit_stack(times_of, np.empty(0), [], prior=PRIOR)


def test_facts_pin_what_a_recipe_does_not_do() -> None:
    pinned = prior_of({"captured": True, "overlap_tensor": False, "overlap_data": False})
    assert pinned["host_s_per_operator"].value == 0
    assert pinned["tensor_overlap"].value == 0
    assert pinned["data_overlap"].value == 0
