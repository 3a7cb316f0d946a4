"""Rebuild the spreads behind every interval from the shipped measurements.

    python -m serried.calibration.spreads   # rewrites data/evidence/spreads.toml, deterministically

Kernels, collectives and peak memory: residuals of the calibrate cases. Training: residuals of each run under its stack
fitted without the run's own fold. Serving: residuals of the published results marked for calibration (nothing was
fitted on them), of sources whose printed load is all there was; first tokens, later ones and throughput apart. Two
pools: residuals of the rows with short prompts, on which nothing was fitted either.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import polars as pl

from serried.calibration.training_stacks import FamilyFit, fit_training_stacks
from serried.evidence.harness import MEASUREMENTS, READERS, read_cases, run_evidence
from serried.evidence.intervals import SPREADS_FILE, Spread, measured_spreads, spread_text
from serried.evidence.serving import evaluate as evaluate_serving
from serried.evidence.serving_points import WIDTH_PROMPT_TOKENS, Point, points_of
from serried.evidence.serving_sources import serving_source
from serried.evidence.spec import EVIDENCE_CLASSES, CaseResults
from serried.evidence.training import evaluate
from serried.software import population_stack
from serried.workload import Floats

__all__ = ["all_spreads", "joined"]


def all_spreads(*, progress: Callable[[str], None] | None = None) -> list[Spread]:
    """Spreads of every area, sorted by area, class and kind."""
    found: list[Spread] = []
    for area in dict.fromkeys(reader.area for reader in READERS):
        every = [results for _, results in run_evidence([area]).parts]
        parts = [results for results in every if results.area == area]
        if not parts:
            continue
        whole = joined(parts)
        residuals = unseen_residuals(whole, fit_training_stacks()) if area == "training" else None
        spreads = served_spreads() if area == "serving" else measured_spreads(whole, residuals)
        if area == "training":
            spreads += population_spreads()
            spreads += [spread for results in every if results.area == "memory" for spread in measured_spreads(results)]
        found += spreads
        if progress is not None:
            progress(f"{area}: {len(spreads)} spreads from {len(whole.ids)} cases")
    return found


def served_spreads() -> list[Spread]:
    """What requests through time are known to, by first tokens, later ones and throughput."""
    frame = read_cases(MEASUREMENTS / "serving" / "published.csv")
    results = evaluate_serving(frame)
    split = ["calibrate" if name == "calibrate" and is_measured_well(point) else "validate"
             for name, point in zip(results.split, points_of(frame), strict=True)]
    return measured_spreads(replace(results, split=split)) + disaggregated_spreads()


def disaggregated_spreads() -> list[Spread]:
    """What two pools are known to, by first tokens and later ones; kinds of their own beside those of one pool.

    The chips' classes share them: what misses is the handing over between the pools, not the kernels.
    """
    frame = read_cases(MEASUREMENTS / "serving" / "inference_measured.csv")
    short = frame.filter((pl.col("mode") != "agg") & (pl.col("isl").cast(pl.Float64) <= WIDTH_PROMPT_TOKENS))
    results = evaluate_serving(short)
    together = replace(results, evidence_class=[EVIDENCE_CLASSES[0]] * len(results.ids))
    return [replace(spread, evidence_class=name) for name in EVIDENCE_CLASSES
            for spread in measured_spreads(together) if spread.kind]


def is_measured_well(point: Point) -> bool:
    """Whether the printed load is all that a point was measured under: no source that only part of is fitted on."""
    return not serving_source(point.source).fitted_metrics


def population_spreads() -> list[Spread]:
    """What an unknown framework is known to: every calibrate run predicted by the population of the stacks."""
    frame = read_cases(MEASUREMENTS / "training" / "published.csv")
    seen = evaluate(frame, stack_of=lambda run, chip: population_stack(chip.family, "training"))
    return [spread for spread in measured_spreads(replace(seen, fold=seen.groups["framework"]))
            if spread.kind == "population"]


def unseen_residuals(results: CaseResults, fits: Sequence[FamilyFit]) -> Floats:
    """ln(measured / predicted) of the time of each case under the fit without its fold; NaN where there is none."""
    by_id = {identity: residual for fit in fits for identity, residual in zip(fit.ids, fit.fit.unseen_R, strict=True)}
    return np.array([by_id.get(identity, np.nan) for identity in results.ids])


def joined(parts: Sequence[CaseResults]) -> CaseResults:
    """Several parts of one area as one; groups that a part lacks are empty there."""
    def column(name: str) -> list[str]:
        return [value for part in parts for value in (getattr(part, name) or [""] * len(part.ids))]

    names = list(dict.fromkeys(name for part in parts for name in part.groups))
    groups: dict[str, Sequence[str]] = {
        name: [value for part in parts for value in part.groups.get(name, [""] * len(part.ids))] for name in names}
    return CaseResults(
        area=parts[0].area, ids=column("ids"), units=column("units"), split=column("split"), fold=column("fold"),
        evidence_class=column("evidence_class"), skipped=[reason for part in parts for reason in part.skipped],
        predicted=np.concatenate([part.predicted for part in parts]),
        measured=np.concatenate([part.measured for part in parts]), groups=groups)


if __name__ == "__main__":
    SPREADS_FILE.write_text(spread_text(all_spreads(progress=print)), encoding="utf-8")
