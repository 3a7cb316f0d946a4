"""What hashing costs beside published pairs of times, and the two latencies of published all-reduces."""

import polars as pl

from serried.evidence import collective_latency, routing
from serried.evidence.harness import MEASUREMENTS, run_evidence


def test_hashing_is_predicted_where_the_switches_are_told():
    found = routing.evaluate(pl.read_csv(MEASUREMENTS / "network" / "routing" / "routing.csv", infer_schema=False))
    told = [row for row, reason in enumerate(found.skipped) if reason is None]
    assert len(told) == 4
    for row in told:
        assert 1.0 < found.low[row] <= found.predicted[row] <= found.high[row]
        assert abs(found.predicted[row] / found.measured[row] - 1) < 0.5      # it is over-predicted, and shown as such
    assert all("not told" in reason or "as a whole" in reason for reason in found.skipped if reason)


def test_one_latency_row_for_each_system_stands_beside_none():
    found = collective_latency.evaluate(pl.read_csv(MEASUREMENTS / "network" / "collectives.csv", infer_schema=False))
    half = len(found.ids) // 2
    assert (found.measured[:half] == found.measured[half:]).all()
    assert not any(found.skipped[:half])
    reasons = {reason for reason in found.skipped[half:] if reason}
    assert any("calibrates" in reason for reason in reasons)


def test_the_area_is_a_user_s_word():
    assert len(run_evidence(["network"]).parts) == 2
