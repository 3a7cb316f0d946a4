"""The whole space of layouts as columns, by array products, filtered by legality as soon as a rule's columns are known.

Axes: L = layout. Degrees vary slowest, so that neighbours in the space share their kernels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields

import numpy as np
from numpy.typing import NDArray

from serried.errors import BadInput
from serried.planner.legality import LEGALITY, columns_of, experts_of
from serried.planner.spec import FORMATS, RECOMPUTE, SCHEDULES, Layouts, Machine
from serried.workload.spec import Training

__all__ = ["CHUNK_LAYOUTS", "layout_chunks", "layout_space", "layouts_of", "switched_layouts"]

#: Layouts in one chunk of the search: enough to pay for a numpy call, few enough to stay in cache and memory.
CHUNK_LAYOUTS = 50_000

#: Columns in the order they are multiplied out; those of one stage are known together.
_STAGES: tuple[tuple[str, ...], ...] = (("tp", "cp", "pp"), ("ep", "expert_tp"), ("micro_batch",),
                                        ("virtual_stages", "schedule"), ("sequence_parallel",))
_SWITCHES = ("number_format", "recompute", "sharding", "overlap_data", "overlap_tensor")
_CODES: Mapping[str, Sequence[str]] = {"recompute": RECOMPUTE, "schedule": SCHEDULES, "number_format": FORMATS}
_BOOLS = ("sequence_parallel", "overlap_data", "overlap_tensor")
#: Recipes that a search tries when the caller names none: one for each engine format that training uses.
_DEFAULT_FORMATS = {"bf16": "bf16", "fp8": "fp8", "fp4": "nvfp4"}

Ints = NDArray[np.int64]


def layouts_of(rows: Sequence[Mapping[str, object]]) -> Layouts:
    """Layouts from rows in words ({"tp": 8, "recompute": "full", ...}); what a row leaves out is 1, off or "none".

    expert_tp follows tp; more than one virtual stage means the interleaved schedule. BadInput names an unknown key.
    """
    names = [column.name for column in fields(Layouts)]
    for row in rows:
        for key in row:
            if key not in names:
                raise BadInput(field=f"layout.{key}", value=row[key], expected=f"one of {', '.join(names)}",
                               remedy="Correct the name; dp follows from the chips.")
    columns = {name: np.array([_coded(name, row.get(name, _default(name, row))) for row in rows], dtype=np.int64)
               for name in names}
    return _layouts(columns)


def _default(name: str, row: Mapping[str, object]) -> object:
    virtual = row.get("virtual_stages", 1)
    return {"expert_tp": row.get("tp", 1), "recompute": "none", "number_format": "bf16", "sharding": 0,
            "schedule": "interleaved" if isinstance(virtual, int) and virtual > 1 else "1f1b",
            "overlap_data": False, "overlap_tensor": False, "sequence_parallel": False}.get(name, 1)


def _coded(name: str, value: object) -> int:
    """A choice in words or as a number, as the integer of its column."""
    if name in _CODES and isinstance(value, str):
        if value not in _CODES[name]:
            raise BadInput(field=f"layout.{name}", value=value, expected=f"one of {', '.join(_CODES[name])}",
                           remedy="Choose one of them.")
        return _CODES[name].index(value)
    if not isinstance(value, (int, np.integer, np.bool_)) or not -(2**31) < int(value) < 2**31:
        raise BadInput(field=f"layout.{name}", value=value, expected="a whole number", remedy="Give a degree.")
    if name in _CODES and not 0 <= int(value) < len(_CODES[name]):
        raise BadInput(field=f"layout.{name}", value=value, expected=f"one of {', '.join(_CODES[name])}",
                       remedy="Choose one of them.")
    return int(value)


def layout_space(job: Training, machine: Machine, **choices: Sequence[object]) -> Layouts:
    """Every legal layout of `job` on `machine`; a column named in `choices` takes only those values."""
    chunks = list(layout_chunks(job, machine, choices=choices))
    if not chunks:
        return layouts_of([])
    return Layouts(**{column.name: np.concatenate([getattr(chunk, column.name) for chunk in chunks])
                      for column in fields(Layouts)})


def layout_chunks(job: Training, machine: Machine, *, choices: Mapping[str, Sequence[object]] | None = None,
                  chunk_layouts: int = CHUNK_LAYOUTS, rejected: dict[str, int] | None = None) -> Iterator[Layouts]:
    """The space in chunks of about `chunk_layouts`, in a fixed order.

    rejected: filled with rule name to how many candidates it refused, counted where the rule first applies.
    """
    pinned = _pinned(choices or {})
    refused: dict[str, int] = {} if rejected is None else rejected
    columns: dict[str, Ints] = {}
    for stage in _STAGES:
        columns = _multiplied(columns, {name: _candidates(name, job, machine, pinned) for name in stage})
        columns = _legal(columns, set(stage), job, machine, refused)
    switches = _multiplied({}, {name: _candidates(name, job, machine, pinned) for name in _SWITCHES})
    per_base = len(switches["sharding"])
    base_count = len(columns["tp"])
    step = max(chunk_layouts // max(per_base, 1), 1)
    for start in range(0, base_count, step):
        part = {name: column[start:start + step] for name, column in columns.items()}
        chunk = _product(part, switches)
        chunk = _legal(chunk, set(_SWITCHES), job, machine, refused)
        if len(chunk["tp"]):
            yield _layouts(chunk)


def switched_layouts(layouts: Layouts, job: Training, machine: Machine, names: Sequence[str],
                     choices: Mapping[str, Sequence[object]]) -> Layouts:
    """Every legal variant of the layouts in the columns `names`; the other columns stay as they are."""
    pinned = _pinned(choices)
    kept = {name: column for name, column in columns_of(layouts).items() if name not in names}
    switches = _multiplied({}, {name: _candidates(name, job, machine, pinned) for name in names})
    return _layouts(_legal(_product(kept, switches), set(names), job, machine, {}))


def _pinned(choices: Mapping[str, Sequence[object]]) -> dict[str, Ints]:
    names = [column.name for column in fields(Layouts)]
    for name in choices:
        if name not in names:
            raise BadInput(field=f"choices.{name}", value=name, expected=f"one of {', '.join(names)}",
                           remedy="dp follows from the chips; pin the other degrees.")
    found = {}
    for name, values in choices.items():
        listed = [values] if isinstance(values, (str, int)) else list(values)
        found[name] = np.array([_coded(name, value) for value in listed], dtype=np.int64)
        if name not in _CODES and name not in (*_BOOLS, "sharding") and (found[name] < 1).any():
            raise BadInput(field=f"choices.{name}", value=listed, expected="degrees of 1 or more", remedy="Use 1.")
    return found


def _divisors(number: int) -> Ints:
    small = [value for value in range(1, int(number**0.5) + 1) if number % value == 0]
    return np.array(sorted({*small, *(number // value for value in small)}), dtype=np.int64)


def _candidates(name: str, job: Training, machine: Machine, pinned: Mapping[str, Ints]) -> Ints:
    """Values of one column worth multiplying out: the pinned ones, else every one that could be legal."""
    if name in pinned:
        return pinned[name]
    chips, layers = machine.chip_count, job.model.layer_count
    if name in ("tp", "cp"):
        return _divisors(chips)
    if name == "pp":
        return _divisors(chips)[_divisors(chips) <= layers]
    if name == "ep":
        return _divisors(experts_of(job.model)) if experts_of(job.model) else np.ones(1, dtype=np.int64)
    if name == "expert_tp":   # 1, and 0 for "as tp", replaced when tp is known
        return np.array([0, 1] if experts_of(job.model) else [0], dtype=np.int64)
    if name == "micro_batch":
        return _divisors(job.global_batch_sequences)
    if name == "virtual_stages":
        places = range(3 + job.model.prediction_blocks)
        return np.unique(np.concatenate([_divisors(layers + extra) for extra in places]))
    if name == "number_format":
        names = [recipe for engine, recipe in _DEFAULT_FORMATS.items() if engine in machine.chip.number_formats]
        if "bf16" not in names and "fp16" in machine.chip.number_formats:
            names.insert(0, "fp16")
        return np.array([FORMATS.index(recipe) for recipe in names or ["bf16"]], dtype=np.int64)
    return np.arange({"schedule": len(SCHEDULES), "recompute": len(RECOMPUTE), "sharding": 4}.get(name, 2))


def _multiplied(columns: Mapping[str, Ints], axes: Mapping[str, Ints]) -> dict[str, Ints]:
    """Every row of `columns` with every combination of `axes`; the last axis varies fastest."""
    grid = np.meshgrid(*axes.values(), indexing="ij")
    added = {name: values.ravel() for name, values in zip(axes, grid, strict=True)}
    found = _product(columns, added) if columns else added
    if "expert_tp" in added:
        as_tp = found["expert_tp"] == 0
        found["expert_tp"] = np.where(as_tp, found["tp"], found["expert_tp"])
        if experts_of_axis := len(axes["expert_tp"]) > 1:   # with tp = 1 both mean the same: keep one
            keep = as_tp | (found["tp"] > 1)
            found = {name: column[keep] for name, column in found.items()} if experts_of_axis else found
    return found


def _product(left: Mapping[str, Ints], right: Mapping[str, Ints]) -> dict[str, Ints]:
    left_count, right_count = (len(next(iter(side.values()))) for side in (left, right))
    return ({name: np.repeat(column, right_count) for name, column in left.items()}
            | {name: np.tile(column, left_count) for name, column in right.items()})


def _legal(columns: dict[str, Ints], new: set[str], job: Training, machine: Machine,
           rejected: dict[str, int]) -> dict[str, Ints]:
    """The rows that keep every rule which speaks of the `new` columns and of known ones only."""
    for rule in LEGALITY:
        if new & set(rule.columns) and set(rule.columns) <= set(columns):
            kept = rule.holds(columns, job, machine)
            refused = int(len(kept) - np.count_nonzero(kept))
            if refused:
                rejected[rule.name] = rejected.get(rule.name, 0) + refused
                columns = {name: column[kept] for name, column in columns.items()}
    return columns


def _layouts(columns: Mapping[str, Ints]) -> Layouts:
    c = columns
    return Layouts(
        tp=c["tp"], cp=c["cp"], pp=c["pp"], ep=c["ep"], expert_tp=c["expert_tp"], virtual_stages=c["virtual_stages"],
        micro_batch=c["micro_batch"], sharding=c["sharding"], recompute=c["recompute"], schedule=c["schedule"],
        number_format=c["number_format"], sequence_parallel=c["sequence_parallel"].astype(np.bool_),
        overlap_data=c["overlap_data"].astype(np.bool_), overlap_tensor=c["overlap_tensor"].astype(np.bool_))
