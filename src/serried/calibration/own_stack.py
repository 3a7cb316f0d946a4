"""Fit a user's own stack on runs with the columns of the published training runs.

The recipe (what is sharded, overlapped, fused) is that of the base stack, told by the runs' framework or named; the
fitted parameters are drawn to what is believed of stacks with such a recipe.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from serried.calibration.own import Moved, OwnFit
from serried.calibration.stack import fit_stack, prior_of
from serried.calibration.training_stacks import FamilyFit, stack_text
from serried.errors import BadInput
from serried.evidence.harness import read_cases
from serried.evidence.runs import COLUMNS, Run
from serried.evidence.training import Prepared, measured_times_s, prepare_runs, read_runs
from serried.silicon import Chip
from serried.software import (
    STACK_FACTS,
    STACK_PARAMETERS,
    Stack,
    find_stack_name,
    population_stack,
    read_stack,
)
from serried.workload import Floats

__all__ = ["LEAST_RUNS", "OwnStack", "fit_own_stack", "found_stack_text"]

#: Eight parameters cannot be told from fewer runs than this, whatever is believed.
LEAST_RUNS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnStack:
    """A stack fitted on a user's runs: the file's text, and one fit per family of chips."""

    text: str
    fits: Sequence[OwnFit]
    base: str


def fit_own_stack(path: Path, name: str, *, base: str | None = None) -> OwnStack:
    """Fit the stack `name` on the runs of `path`.

    Runs marked `calibrate` are fitted when there are any; without such marks all are. base: the stack whose recipe it
    has; default: the one that most of the runs' framework names call. BadInput when fewer than three can be predicted.
    """
    frame = read_cases(path)
    missing = [column for column in COLUMNS if column not in frame.columns]
    if missing:
        raise BadInput(file=str(path), field="header", value=f"no column {missing[0]!r}",
                       expected="the columns of the shipped training runs",
                       remedy=f"Also needed: {', '.join(missing)}.")
    rows = read_runs(frame)
    runs = [row for row in rows if isinstance(row, Run)]
    marked = [run for run in runs if run.split == "calibrate"]
    chosen = marked or runs
    recipe = base or _told_base(chosen)
    prepared = prepare_runs(chosen, stack_of=lambda _, chip: _base(recipe, chip))
    skipped = [f"{row.id}: {row.reason}" for row in rows if not isinstance(row, Run)]
    skipped += [f"{chosen[position].id}: {reason}" for position, reason in prepared.refused.items()]
    if len(prepared.positions) < LEAST_RUNS:
        raise BadInput(file=str(path), field="runs", value=len(prepared.positions),
                       expected=f"at least {LEAST_RUNS} runs that can be predicted",
                       remedy="; ".join(skipped[:3]) or "Give more runs.")
    families: dict[str, list[int]] = {}
    for row, machine in enumerate(prepared.machines):
        families.setdefault(machine.chip.family, []).append(row)
    found = [_fit_family(name, family, prepared.take(members), chosen, skipped)
             for family, members in sorted(families.items())]
    facts = prepared.machines[0].stack.facts
    return OwnStack(text=stack_text(_header(name, facts), [fit for fit, _ in found]), base=recipe,
                    fits=[own for _, own in found])


def _told_base(runs: Sequence[Run]) -> str:
    """The stack that most runs' frameworks are called, or the population of all."""
    names = Counter(find_stack_name(run.framework, "training") or "population" for run in runs)
    return names.most_common(1)[0][0] if names else "population"


def _base(name: str, chip: Chip) -> Stack:
    return population_stack(chip.family) if name == "population" else read_stack(name, chip.family)


def _fit_family(name: str, family: str, part: Prepared, runs: Sequence[Run],
                skipped: Sequence[str]) -> tuple[FamilyFit, OwnFit]:
    behind = [runs[position] for position in part.positions]
    base, folds = part.machines[0].stack, [f"{run.source}/{run.model.name}" for run in behind]
    rest = {parameter: spec.perfect for parameter, spec in STACK_PARAMETERS.items()}

    def times_of(parameters: Mapping[str, float]) -> Floats:
        return part.times_under(rest | dict(parameters))

    measured_s, prior = measured_times_s(behind), prior_of(base.facts)
    fit = fit_stack(times_of, measured_s, folds, prior=prior)
    moved = [Moved(name=key, unit=STACK_PARAMETERS[key].unit, description=STACK_PARAMETERS[key].description,
                   before=base[key], after=value, spread=fit.spreads[key]) for key, value in fit.parameters.items()]
    own = OwnFit(subject=f"stack on {family}", start=f"the recipe of {base.name}", labels=[run.id for run in behind],
                 before_s=part.times_s([machine.stack for machine in part.machines]),
                 predicted_s=measured_s * np.exp(-fit.residual_R), measured_s=measured_s, moved=moved, skipped=skipped,
                 unseen_ln=-fit.unseen_R if len(set(folds)) > 1 else np.empty(0))
    return FamilyFit(stack=name, chip_family=family, fit=fit, ids=tuple(run.id for run in behind), folds=tuple(folds),
                     sources=tuple(sorted({_quoted(run.source) for run in behind}))), own


def found_stack_text(stack: Stack, chip_family: str) -> str:
    """A stack as the text of its file, with one fit, for `chip_family`."""
    lines = [_header(stack.name, stack.facts), "", "[[fit]]", f'chip_family = "{chip_family}"',
             f"rows = {stack.fitted_rows}"]
    for key, value in stack.parameters.items():
        lines.append(f'{key} = {{ value = {value:.5g}, spread = {stack.spreads.get(key, 0.0):.4g}, '
                     f'status = "{stack.status.get(key, "estimated")}", source = "{_quoted(stack.source)}" }}')
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """Text that stands between quotes in a file."""
    return "".join(letter for letter in text if letter.isprintable() and letter not in '"\\')


def _header(name: str, facts: Mapping[str, object]) -> str:
    lines = ['schema = "serried/stack/1"', f'name = "{name}"', "", "[facts]"]
    for key, value in facts.items():
        if key in STACK_FACTS and (value != STACK_FACTS[key] or key == "kind"):
            shown = str(value).lower() if isinstance(value, bool) else \
                f'"{_quoted(value)}"' if isinstance(value, str) else repr(value)
            lines.append(f"{key} = {shown}")
    return "\n".join(lines)
