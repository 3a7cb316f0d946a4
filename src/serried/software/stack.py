"""Stacks as data: read one, choose one for a chip family, or take the population of the known ones.

The form of a stack file (`data/stacks/*.toml`, or a user's own):

    schema = "serried/stack/1"
    name = "some-framework-2024"
    aliases = ["Some Framework", "Some Framework 24.07"]   # as people print it; a longer release may follow
    [facts]                          # what the recipe does, not fitted: see STACK_FACTS
    kind = "training"
    [[fit]]                          # one per chip family; "*" speaks for any other
    chip_family = "*"
    rows = 0                         # calibrate rows behind the values, 0 = taken over
    gemm_rate_ratio = { value = 0.9, spread = 0.1, status = "assumed", source = "..." }
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from serried.catalogue import Entry, names_of, read_entry
from serried.catalogue.entry import fold
from serried.catalogue.spec import STATUSES
from serried.errors import BadInput, nearest
from serried.software.spec import STACK_FACTS, STACK_PARAMETERS, Stack
from serried.units import parse_quantity

__all__ = ["StackKind", "find_stack_name", "perfect_stack", "population_stack", "read_stack", "stack_for",
           "stack_names"]

StackKind = Literal["training", "serving"]

#: What the population of a kind is called.
POPULATION_NAMES = {"training": "population", "serving": "population of serving stacks"}
#: Half-width of an 80 % interval of a normal distribution in standard deviations.
_EIGHTY_PERCENT = 1.2816
#: A fit of one chip family that speaks for another is at least this unsure (relative to the value).
_OTHER_FAMILY_SPREAD = 0.15


def stack_names(kind: StackKind | None = None) -> list[str]:
    """Canonical names of the shipped stacks, of one kind or of both."""
    return [name for name in names_of("stacks") if kind is None or _entry(name).facts.get("kind") == kind]


def read_stack(name_or_path: str, chip_family: str = "*") -> Stack:
    """The stack called so (or the file at that path), as fitted on `chip_family`.

    A family without a fit of its own gets the fit that speaks for any ("*"); without one, the mean of the others
    with their spread. BadInput names the file and the field of anything that is not a stack.
    """
    is_shipped = not name_or_path.endswith(".toml") and "/" not in name_or_path
    return _stack_of(_entry(name_or_path) if is_shipped else read_entry("stacks", name_or_path, {}), chip_family)


def stack_for(chip_family: str, kind: StackKind = "training", framework: str | None = None) -> Stack:
    """The stack of `framework` on `chip_family`; without one, the best known stack there.

    Best known: fitted on rows of that family, then by the rate of its matrix products and what it leaves unfused.
    A framework that nobody has fitted, or a family that no stack knows, gets the population.
    """
    if framework is not None:
        name = find_stack_name(framework, kind)
        return population_stack(chip_family, kind) if name is None else read_stack(name, chip_family)
    known = [stack for stack in _all_stacks(chip_family, kind) if stack.fitted_rows > 0]
    own = [stack for stack in known if fold(stack.chip_family) == fold(chip_family)]
    return max(own, key=_quality) if own else population_stack(chip_family, kind)


def find_stack_name(framework: str, kind: StackKind | None = None) -> str | None:
    """Canonical name of the stack that people print as `framework`: a name, an alias, or the longest alias it begins
    with ("NeMo 24.07" begins with "NeMo"); None when nothing is called so."""
    wanted = fold(framework)
    found = [(len(fold(alias)), name) for name in stack_names(kind)
             for alias in (name, *_entry(name).aliases) if wanted.startswith(fold(alias))]
    return max(found)[1] if found else None


def perfect_stack() -> Stack:
    """Reaches its kernel profile, fuses, hides and launches for nothing: the ceiling that a gap is measured from."""
    names = STACK_PARAMETERS
    return Stack(name="perfect", chip_family="*", parameters={name: spec.perfect for name, spec in names.items()},
                 spreads=dict.fromkeys(names, 0.0), status=dict.fromkeys(names, "assumed"), fitted_rows=0,
                 facts={**STACK_FACTS, "captured": True, "overlap_tensor": True, "overlap_pipeline": True},
                 source="definition")


def population_stack(chip_family: str, kind: StackKind = "training") -> Stack:
    """Mean of the known stacks of a kind, with their deviation as spread: what to expect of software nobody has seen.

    Fits of the family itself come first; where there is none, every stack's fit for other chips counts. What the recipe
    does is what most stacks of the kind do, on whatever chip: a family with old runs does not make new software old.
    """
    stacks = _all_stacks(chip_family, kind)
    own = [stack for stack in stacks if fold(stack.chip_family) == fold(chip_family) and stack.fitted_rows > 0]
    chosen = own if len(own) >= 2 else [stack for stack in stacks if stack.fitted_rows > 0] or stacks
    if not chosen:
        raise BadInput(field="stack", value=kind, expected="at least one stack of this kind in the catalogue",
                       remedy="Give a stack file.")
    return _mean_of(chosen, name=POPULATION_NAMES[kind], chip_family=chip_family,
                    facts={**STACK_FACTS, "kind": kind, **_agreed(stack.facts for stack in stacks)})


def _agreed(tables: Iterable[Mapping[str, object]]) -> dict[str, object]:
    """The facts that most of the stacks share."""
    counted: dict[str, list[object]] = {}
    for table in tables:
        for key, value in table.items():
            counted.setdefault(key, []).append(value)
    return {key: max(values, key=values.count) for key, values in sorted(counted.items())}


@functools.cache
def _entry(name: str) -> Entry:
    return read_entry("stacks", name, {})


def _all_stacks(chip_family: str, kind: StackKind) -> list[Stack]:
    return [_stack_of(_entry(name), chip_family) for name in stack_names(kind)]


def _quality(stack: Stack) -> float:
    """Products and attention are most of a step, what is unfused about a sixth of it: enough to rank stacks."""
    rate = math.exp(0.8 * math.log(stack["gemm_rate_ratio"]) + 0.2 * math.log(stack["attention_rate_ratio"]))
    return rate / (1 + stack["unfused_fraction"] / 6)


def _stack_of(entry: Entry, chip_family: str) -> Stack:
    fits = entry.tables.get("fit", [])
    if not isinstance(fits, list) or not fits or not all(isinstance(fit, dict) for fit in fits):
        raise BadInput(file=entry.file, field="fit", value=fits, expected="one [[fit]] table per chip family",
                       remedy='Write [[fit]] with chip_family = "*" and the parameters below it.')
    facts = _facts(entry)
    by_family = {fold(str(fit.get("chip_family", "*"))): _fit(fit, entry, facts) for fit in fits}
    own = by_family.get(fold(chip_family)) or by_family.get(fold("*"))
    if own is not None:
        return own
    return _mean_of(list(by_family.values()), name=entry.name, chip_family=chip_family, facts=facts,
                    aliases=entry.aliases)


def _facts(entry: Entry) -> dict[str, object]:
    facts = {**STACK_FACTS, **entry.facts}
    for key, value in entry.facts.items():
        if key not in STACK_FACTS or (STACK_FACTS[key] is not None and not _same_type(value, STACK_FACTS[key])):
            near = nearest(key, STACK_FACTS)
            raise BadInput(file=entry.file, field=f"facts.{key}", value=value,
                           expected=f"a fact of a stack of the type of {STACK_FACTS.get(key)!r}",
                           remedy=f"Known: {', '.join(near or STACK_FACTS)}.")
    if facts["kind"] not in ("training", "serving"):
        raise BadInput(file=entry.file, field="facts.kind", value=facts["kind"], expected="training or serving",
                       remedy='Write kind = "training".')
    return facts


def _same_type(value: object, example: object) -> bool:
    if isinstance(example, bool) or isinstance(value, bool):
        return isinstance(value, bool) and isinstance(example, bool)
    return isinstance(value, (int, float)) if isinstance(example, (int, float)) else isinstance(value, type(example))


def _fit(fit: Mapping[str, Any], entry: Entry, facts: Mapping[str, object]) -> Stack:
    family, rows = str(fit.get("chip_family", "*")), fit.get("rows", 0)
    where = f"fit[{family}]"
    if not isinstance(rows, int) or isinstance(rows, bool) or rows < 0:
        raise BadInput(file=entry.file, field=f"{where}.rows", value=rows, expected="a whole number, 0 or more",
                       remedy="Say how many calibrate rows are behind the fit.")
    for key, value in fit.items():
        if key not in STACK_PARAMETERS and key not in ("chip_family", "rows", "note"):
            raise BadInput(file=entry.file, field=f"{where}.{key}", value=value, expected="a parameter of a stack",
                           remedy=f"Known: {', '.join(STACK_PARAMETERS)}.")
    read = {name: _parameter(fit.get(name), name, where, entry.file) for name in STACK_PARAMETERS}
    return Stack(name=entry.name, chip_family=family, fitted_rows=rows, facts=facts, aliases=entry.aliases,
                 parameters={name: value for name, (value, _, _, _) in read.items()},
                 spreads={name: spread for name, (_, spread, _, _) in read.items()},
                 status={name: status for name, (_, _, status, _) in read.items()},
                 source="; ".join(dict.fromkeys(source for _, _, _, source in read.values() if source)))


def _parameter(table: Any, name: str, where: str, file: str) -> tuple[float, float, str, str]:
    """(value, spread, status, source) of one parameter; one that a file does not give is perfect and assumed."""
    spec = STACK_PARAMETERS[name]
    field = f"{where}.{name}"
    if table is None:
        return spec.perfect, 0.0, "assumed", ""
    if not isinstance(table, dict) or "value" not in table or not set(table) <= {"value", "spread", "status", "source"}:
        raise BadInput(file=file, field=field, value=table,
                       expected="{ value = ..., spread = ..., status = ..., source = ... }",
                       remedy="Give the parameter its provenance.")
    value = parse_quantity(table["value"], spec.unit, field=f"{field}.value", file=file)
    spread = parse_quantity(table.get("spread", 0.0), spec.unit, field=f"{field}.spread", file=file)
    if not spec.low <= value <= spec.high or spread < 0:
        raise BadInput(file=file, field=field, value=table["value"],
                       expected=f"a value from {spec.low:g} to {spec.high:g} and a spread of 0 or more",
                       remedy=f"{name}: {spec.description}.")
    if table.get("status") not in STATUSES:
        raise BadInput(file=file, field=f"{field}.status", value=table.get("status"),
                       expected=f"one of {', '.join(STATUSES)}", remedy="Say how surely it is known.")
    return value, spread, table["status"], str(table.get("source", ""))


def _mean_of(stacks: Sequence[Stack], *, name: str, chip_family: str, facts: Mapping[str, object],
             aliases: tuple[str, ...] = ()) -> Stack:
    """Mean over stacks; the spread covers their deviation and what each of them is unsure of."""
    parameters, spreads = {}, {}
    for key in STACK_PARAMETERS:
        values = [stack[key] for stack in stacks]
        mean = math.fsum(values) / len(values)
        variance = math.fsum((value - mean) ** 2 for value in values) / max(len(values) - 1, 1)
        own = math.fsum(stack.spreads[key] ** 2 for stack in stacks) / len(stacks)
        parameters[key] = mean
        spreads[key] = max(math.sqrt(_EIGHTY_PERCENT**2 * variance + own), _OTHER_FAMILY_SPREAD * mean)
    return Stack(name=name, chip_family=chip_family, parameters=parameters, spreads=spreads, fitted_rows=0,
                 status=dict.fromkeys(STACK_PARAMETERS, "estimated"), facts=facts, aliases=aliases,
                 source="mean of " + ", ".join(dict.fromkeys(f"{s.name} on {s.chip_family}" for s in stacks)))
