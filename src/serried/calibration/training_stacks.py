"""Fit every training stack on its calibrate runs, one fit per family of chips, and write what came out.

    python -m serried.calibration.training_stacks      # rewrites data/stacks/*.toml, deterministically

A fold is a model of a source at one length of sequence. A family gets a fit of its own from a handful of runs on; what
its runs cannot see stays at what is believed of stacks with such a recipe (`calibration.stack.prior_of`). Validate runs
are never read here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from serried.calibration.stack import StackFit, fit_stack, prior_of
from serried.catalogue.entry import DATA
from serried.evidence.harness import MEASUREMENTS, read_cases
from serried.evidence.runs import Run
from serried.evidence.training import Prepared, measured_times_s, prepare_runs, read_runs
from serried.software import STACK_PARAMETERS
from serried.workload import Floats

__all__ = ["FamilyFit", "fit_training_stacks", "stack_text", "write_stacks"]

STACKS = DATA / "stacks"
_PUBLISHED = MEASUREMENTS / "training" / "published.csv"
_HEADER_END = "[[fit]]"


@dataclass(frozen=True, slots=True, kw_only=True)
class FamilyFit:
    """One stack on one family of chips; ids and unseen_R of the runs behind it (unseen: fitted without their fold)."""

    stack: str
    chip_family: str
    fit: StackFit
    ids: tuple[str, ...]
    folds: tuple[str, ...]
    sources: tuple[str, ...]


def fit_training_stacks(runs: Sequence[Run] | None = None, *,
                        progress: Callable[[str], None] | None = None) -> list[FamilyFit]:
    """A fit for every stack and chip family that calibrate runs name; runs of unknown frameworks are left out."""
    if runs is None:
        runs = [run for run in read_runs(read_cases(_PUBLISHED)) if isinstance(run, Run)]
    chosen = [run for run in runs if run.split == "calibrate"]
    prepared = prepare_runs(chosen)
    groups: dict[tuple[str, str], list[int]] = {}
    for row, machine in enumerate(prepared.machines):
        if machine.stack.name != "population":
            groups.setdefault((machine.stack.name, machine.chip.family), []).append(row)
    found = []
    for (name, family), rows in sorted(groups.items()):
        part = prepared.take(rows)
        behind = [chosen[position] for position in part.positions]
        found.append(_fit_family(name, family, part, behind))
        if progress is not None:
            error = np.median(np.expm1(np.abs(found[-1].fit.residual_R)))
            unseen = np.median(np.expm1(np.abs(found[-1].fit.unseen_R)))
            progress(f"{name} on {family}: {len(rows)} runs, median {error:.1%}, without their fold {unseen:.1%}")
    return found


def _fit_family(name: str, family: str, part: Prepared, runs: Sequence[Run]) -> FamilyFit:
    folds = [f"{run.source}/{run.model.name}/{run.job.sequence_tokens}" for run in runs]
    facts = part.machines[0].stack.facts
    rest = {parameter: spec.perfect for parameter, spec in STACK_PARAMETERS.items()}

    def times_of(parameters: Mapping[str, float]) -> Floats:
        return part.times_under(rest | dict(parameters))

    fit = fit_stack(times_of, measured_times_s(runs), folds, prior=prior_of(facts))
    return FamilyFit(stack=name, chip_family=family, fit=fit, ids=tuple(run.id for run in runs), folds=tuple(folds),
                     sources=tuple(sorted({run.source for run in runs})))


def stack_text(header: str, fits: Sequence[FamilyFit]) -> str:
    """A stack file: the recipe as it stood, then one fit per family."""
    lines = [header.rstrip(), ""]
    for found in fits:
        rows = len(found.ids)
        source = f"fitted on {rows} calibrate runs: {', '.join(found.sources)}"
        lines += ["[[fit]]", f'chip_family = "{found.chip_family}"', f"rows = {rows}"]
        for name, value in found.fit.parameters.items():
            spread = found.fit.spreads[name]
            status, whence = ("measured", source) if found.fit.informed[name] else ("assumed", "the recipe")
            lines.append(f'{name} = {{ value = {value:.4g}, spread = {spread:.3g}, status = "{status}", '
                         f'source = "{whence}" }}')
        lines.append("")
    return "\n".join(lines)


def write_stacks(fits: Sequence[FamilyFit], folder: Path = STACKS) -> list[Path]:
    """Rewrite the files of the stacks that were fitted; their facts and aliases stay."""
    written = []
    for name in sorted({found.stack for found in fits}):
        path = folder / f"{name}.toml"
        header = path.read_text(encoding="utf-8").partition(_HEADER_END)[0]
        path.write_text(stack_text(header, [found for found in fits if found.stack == name]), encoding="utf-8")
        written.append(path)
    return written


if __name__ == "__main__":
    write_stacks(fit_training_stacks(progress=print))
