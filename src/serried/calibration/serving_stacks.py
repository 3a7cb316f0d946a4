"""Fit every serving stack on its calibrate figures, one fit per family of chips.

    python -m serried.calibration.serving_stacks            # the fits and how they do on models left out
    python -m serried.calibration.serving_stacks --write    # also into data/stacks/*.toml, deterministically

No fit is shipped today. On calibrate figures a fit often predicts models left out better than what is believed of the
stack; but offline throughput and time per token of a light load pull its parameters apart, which says that the static
model lacks a cost that they then stand in for. Until it is found, a stack is believed rather than bent.

Fitted are throughput and time per token: a first token under load depends on how requests queue, which a static load
does not know. What the figures cannot see stays at what the stack's fit for any chip ("*") believes. Validate rows are
never read here.

Axes: C = case (a figure of a row), D = the same cases as deployments.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from serried.calibration.stack import Belief, StackFit, fit_stack
from serried.catalogue.entry import DATA
from serried.errors import SerriedError
from serried.evidence.harness import MEASUREMENTS, read_cases
from serried.evidence.serving import machine_of, refuse_impossible
from serried.evidence.serving_points import METRICS, Point, points_of
from serried.evidence.serving_sources import serving_source
from serried.serving import Deployments, PhaseTimes, StaticTables, static_tables
from serried.serving.static import closed_loop
from serried.software import STACK_PARAMETERS, Stack, find_stack_name, read_stack
from serried.workload.spec import Floats, Serving

__all__ = ["FITTED_METRICS", "ServingFit", "fit_serving_stacks", "stack_file_text", "write_stacks"]

FITTED_METRICS = ("output_throughput_per_chip", "tpot")
FITTED_PARAMETERS = ("gemm_rate_ratio", "attention_rate_ratio", "unfused_fraction", "host_s_per_operator",
                     "host_s_per_step", "tensor_overlap", "collective_rate_ratio")
STACKS = DATA / "stacks"
_PUBLISHED = MEASUREMENTS / "serving" / "published.csv"
_EIGHTY_PERCENT = 1.2816
#: What one figure leaves open, in ln. Chosen after 0.05 and 0.2 were tried: the largest, so that figures of few models
#: move a stack least.
_NOISE = 0.5
_Columns = TypeVar("_Columns", Deployments, StaticTables, PhaseTimes)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingFit:
    """One stack on one family of chips; ids, folds (models) and sources of the cases behind it."""

    stack: str
    chip_family: str
    fit: StackFit
    ids: tuple[str, ...]
    folds: tuple[str, ...]
    sources: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Group:
    """Cases that share their output length: one closed loop evaluates them all. cases: their positions."""

    job: Serving
    rows: Deployments
    tables: StaticTables
    cases: NDArray[np.intp]


def fit_serving_stacks(points: Sequence[Point] | None = None, *,
                       progress: Callable[[str], None] | None = None) -> list[ServingFit]:
    """A fit for every stack and chip family that calibrate figures name."""
    if points is None:
        points = points_of(read_cases(_PUBLISHED))
    grouped: dict[tuple[str, str], list[tuple[Point, StaticTables]]] = {}
    for point in points:
        name = find_stack_name(point.engine, "serving")
        tables = _tables(point) if name is not None and _is_fitted(point) else None
        if name is not None and tables is not None:
            grouped.setdefault((name, machine_of(point.chip, 1, point.engine).chip.family), []).append((point, tables))
    found = []
    for (name, family), cases in sorted(grouped.items(), key=lambda item: item[0]):
        found.append(_fit_family(name, family, cases))
        if progress is not None:
            error, unseen = (np.median(np.expm1(np.abs(residual)))
                             for residual in (found[-1].fit.residual_R, found[-1].fit.unseen_R))
            progress(f"{name} on {family}: {len(cases)} figures, median {error:.1%}, without their model {unseen:.1%}")
    return found


def _is_fitted(point: Point) -> bool:
    source = serving_source(point.source)
    return point.split == "calibrate" and point.skipped is None and point.metric in FITTED_METRICS \
        and point.metric in (source.fitted_metrics or FITTED_METRICS) and point.job is not None \
        and (not source.fitted_concurrency or point.job.concurrency <= source.fitted_concurrency)


def _tables(point: Point) -> StaticTables | None:
    """The tables of a case; None where it cannot be predicted."""
    assert point.job is not None
    assert point.layout is not None
    try:
        machine = machine_of(point.chip, int(point.layout.chip_count[0]), point.engine)
        refuse_impossible(point, machine)
        tables = static_tables(point.job, machine, point.layout)
    except SerriedError:
        return None
    return tables if tables.max_batch[0] >= 1.0 else None


def _fit_family(name: str, family: str, cases: Sequence[tuple[Point, StaticTables]]) -> ServingFit:
    groups = _grouped(cases)
    points = [point for point, _ in cases]
    is_rate_C = np.array([point.metric != "tpot" for point in points])
    measured_C = np.array([point.measured / METRICS[point.metric][1] for point in points])
    rest = {parameter: spec.perfect for parameter, spec in STACK_PARAMETERS.items()}

    def times_of(parameters: Mapping[str, float]) -> Floats:
        """Seconds a token: between tokens of one request, or chip-seconds for one of any."""
        time_s_C = np.empty(len(points))
        for group in groups:
            loop = closed_loop(group.job, group.rows, group.tables, rest | dict(parameters))
            per_chip_s = group.rows.chip_count / loop.output_tokens_per_s
            time_s_C[group.cases] = np.where(is_rate_C[group.cases], per_chip_s, loop.tpot_s)
        return time_s_C

    folds = [point.job.model.name for point in points if point.job is not None]
    fit = fit_stack(times_of, np.where(is_rate_C, 1.0 / measured_C, measured_C), folds,
                    prior=believed(read_stack(name, "*")), noise=_NOISE)
    return ServingFit(stack=name, chip_family=family, fit=fit, ids=tuple(point.id for point in points),
                      folds=tuple(folds), sources=tuple(sorted({point.source for point in points})))


def believed(anywhere: Stack) -> Mapping[str, Belief]:
    """What is believed of a stack on a chip it was not fitted on: its fit for any chip, with that spread."""
    return {name: Belief(value=anywhere[name], deviation=anywhere.spreads[name] / _EIGHTY_PERCENT)
            for name in FITTED_PARAMETERS}


def _grouped(cases: Sequence[tuple[Point, StaticTables]]) -> list[_Group]:
    lengths = np.array([point.job.output_tokens for point, _ in cases if point.job is not None])
    found = []
    for length in np.unique(lengths):
        chosen = np.flatnonzero(lengths == length)
        first = cases[chosen[0]][0].job
        layouts = [layout for layout in (cases[int(case)][0].layout for case in chosen) if layout is not None]
        assert first is not None
        found.append(_Group(job=replace(first, output_tokens=int(length)), cases=chosen,
                            rows=_joined(layouts), tables=_joined([cases[int(case)][1] for case in chosen])))
    return found


def _joined(parts: Sequence[_Columns]) -> _Columns:
    """Tables of the same kind, one after another."""
    columns: dict[str, Any] = {}
    for column in fields(parts[0]):
        values = [getattr(part, column.name) for part in parts]
        columns[column.name] = _joined(values) if isinstance(values[0], PhaseTimes) else np.concatenate(values)
    return type(parts[0])(**columns)


def stack_file_text(text: str, fits: Sequence[ServingFit]) -> str:
    """A stack file with these fits in place of its fitted ones; recipe and the fit for any chip stay as they are."""
    header, *tables = text.split("[[fit]]")
    kept = [table.strip() for table in tables if 'chip_family = "*"' in table]
    for found in fits:
        source = f"fitted on {len(found.ids)} calibrate figures: {', '.join(found.sources)}"
        lines = [f'chip_family = "{found.chip_family}"', f"rows = {len(found.ids)}"]
        lines += [f'{name} = {{ value = {value:.4g}, spread = {found.fit.spreads[name]:.3g}, status = "measured", '
                  f'source = "{source}" }}' for name, value in found.fit.parameters.items()]
        kept.append("\n".join(lines))
    return header.rstrip() + "\n" + "".join(f"\n[[fit]]\n{table}\n" for table in kept)


def write_stacks(fits: Sequence[ServingFit], folder: Path = STACKS) -> list[Path]:
    """Rewrite the files of the stacks that were fitted."""
    written = []
    for name in sorted({found.stack for found in fits}):
        path = folder / f"{name}.toml"
        text = stack_file_text(path.read_text(encoding="utf-8"), [found for found in fits if found.stack == name])
        path.write_text(text, encoding="utf-8")
        written.append(path)
    return written


if __name__ == "__main__":
    fitted = fit_serving_stacks(progress=print)
    if "--write" in sys.argv[1:]:
        write_stacks(fitted)
