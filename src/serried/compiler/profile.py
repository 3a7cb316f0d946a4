"""Kernel profiles as data: read one, choose one for a chip, write one.

The form of a profile file (`data/profiles/*.toml`, or a user's own):

    schema = "serried/profile/1"
    name = "Some Chip"
    [facts]
    chips = ["some-chip"]                 # catalogue names whose kernels were measured
    chip_families = ["some-family"]       # silicon families that inherit it; "*" is any
    spread = 0.12                         # 80 % half-width on a measured chip, as a fraction
    spread_family = 0.25                  # and on another chip of the family
    [gemm.bf16]                           # kernel family, variant
    some_ratio = 0.8                      # parameters, as the family's dataclass declares them
    [gemm.bf16.fit]                       # where they come from
    library = "..."
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import MISSING, fields, replace
from typing import Any

from serried.catalogue.entry import DATA, Entry, fold, read_entry
from serried.compiler.attention import AttentionBackwardParameters, AttentionParameters
from serried.compiler.decode import DecodeParameters
from serried.compiler.experts import RouteParameters
from serried.compiler.gemm import ENGINE_FORMAT, GemmParameters
from serried.compiler.grouped_gemm import GroupedGemmParameters
from serried.compiler.memory_bound import MemoryBoundParameters
from serried.compiler.quantise import QuantiseParameters
from serried.compiler.spec import KernelFit, KernelProfile
from serried.errors import BadInput, nearest
from serried.silicon.spec import Chip

__all__ = ["FAMILIES", "profile_for", "profile_names", "profile_of", "read_profile", "with_own_rates"]

#: Kernel family to its parameter dataclass. A new family adds its line here and its branch in `operator`.
FAMILIES: dict[str, type] = {
    "gemm": GemmParameters,
    "grouped_gemm": GroupedGemmParameters,
    "route": RouteParameters,
    "quantise": QuantiseParameters,
    "attention": AttentionParameters,
    "attention_backward": AttentionBackwardParameters,
    "decode": DecodeParameters,
    "memory_bound": MemoryBoundParameters,
}

_FACTS = {"chips", "chip_families", "spread", "spread_family", "library", "release", "source"}


def read_profile(name_or_path: str) -> KernelProfile:
    """The profile called so in the catalogue, or the profile file at that path."""
    return profile_of(read_entry("profiles", name_or_path, {}))


def profile_names() -> list[str]:
    """File stems of the shipped profiles, sorted."""
    return sorted(path.stem for path in (DATA / "profiles").glob("*.toml"))


def profile_for(chip: Chip, library: str | None = None) -> KernelProfile:
    """The profile of the chip itself, else of its silicon family, else the one that speaks for any.

    library: name or path of a profile to use instead, whatever the chip; the evidence class still tells how near the
    chip is to it.
    """
    shipped = [_read_cached(name) for name in profile_names()] if library is None else [read_profile(library)]
    names = {fold(name) for name in (chip.name, *chip.aliases)}
    own = [profile for profile in shipped if names & {fold(name) for name in profile.chips}]
    if own:
        return own[0]
    kin = [profile for profile in shipped if fold(chip.family) in {fold(name) for name in profile.chip_families}]
    if kin:
        known = "same family" if kin[0].chips else "data sheet only"     # a profile that nobody measured is estimated
        return kin[0].with_class(known, kin[0].family_spread)
    any_chip = [profile for profile in shipped if "*" in profile.chip_families] or shipped[:1]
    if not any_chip:
        raise BadInput(field="kernel profile", value=chip.family, expected="a profile for the family, or a generic one",
                       remedy="Give a profile file, or calibrate one.")
    return with_own_rates(any_chip[0], chip).with_class("data sheet only", any_chip[0].family_spread)


def with_own_rates(profile: KernelProfile, chip: Chip) -> KernelProfile:
    """The profile with the chip's own sustained rates where public measurements give them.

    A memory of few slow channels, or an engine that power never throttles, gives more of its peak than the chips that
    the profile was fitted on, and both ratios are there to say how much.
    """
    families = {name: dict(variants) for name, variants in profile.families.items()}
    bandwidth = chip.get("sustained_bandwidth")
    if bandwidth is not None:
        ratio = min(bandwidth / chip.need("hbm_bandwidth"), 1.0)
        for name in ("gemm", "decode", "memory_bound"):
            families[name] = {variant: replace(parameters, hbm_ratio=ratio)
                              for variant, parameters in families.get(name, {}).items()}
    for variant, parameters in families.get("gemm", {}).items():
        engine = ENGINE_FORMAT.get(variant, variant)
        rate, peak = chip.get(f"sustained_matrix.{engine}"), chip.get(f"matrix_peak.{engine}")
        if rate is not None and peak is not None:
            families["gemm"][variant] = replace(parameters, sustained_rate_ratio=min(rate / peak, 1.0),
                                                  reference_j_per_flop=0.0)
    return replace(profile, families=families)


def profile_of(entry: Entry) -> KernelProfile:
    """A catalogue entry as a KernelProfile; BadInput names the table and key that a family does not declare."""
    unknown = sorted(set(entry.facts) - _FACTS)
    if unknown:
        raise BadInput(file=entry.file, field=f"facts.{unknown[0]}", value=entry.facts[unknown[0]],
                       expected=f"one of {', '.join(sorted(_FACTS))}", remedy="Remove it or correct its name.")
    families: dict[str, dict[str, Any]] = {}
    fits: dict[str, dict[str, KernelFit]] = {}
    for family, variants in entry.tables.items():
        if family not in FAMILIES or not isinstance(variants, dict):
            raise BadInput(file=entry.file, field=family, value=variants, expected=f"one of {', '.join(FAMILIES)}",
                           remedy=f"Nearest: {', '.join(nearest(family, FAMILIES))}.")
        for variant, table in variants.items():
            where = f"{family}.{variant}"
            if not isinstance(table, dict) or not isinstance(table.get("fit", {}), dict):
                raise BadInput(file=entry.file, field=where, value=table, expected="a table of parameters",
                               remedy=f"Write [{where}] on its own line, and [{where}.fit] for where they come from.")
            values = dict(table)
            fits.setdefault(family, {})[variant] = _declared(KernelFit, values.pop("fit", {}), f"{where}.fit", entry)
            families.setdefault(family, {})[variant] = _declared(FAMILIES[family], values, where, entry)
    return KernelProfile(name=entry.name, file=entry.file, chips=tuple(entry.facts.get("chips", ())),
                         chip_families=tuple(entry.facts.get("chip_families", ())), families=families, fits=fits,
                         spread=_number(entry, "spread", 0.1),
                         family_spread=_number(entry, "spread_family", 0.25))


def _declared(kind: type, values: Mapping[str, Any], where: str, entry: Entry) -> Any:
    """`values` as an instance of the dataclass `kind`; every key known, every number finite and within its range."""
    declared = {column.name: column for column in fields(kind)}
    for key, value in values.items():
        if key not in declared:
            raise BadInput(file=entry.file, field=f"{where}.{key}", value=value,
                           expected=f"one of {', '.join(declared)}", remedy="Remove it or correct its name.")
        low, high = (declared[key].metadata.get(bound) for bound in ("low", "high"))
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if low is not None and not (is_number and low <= value <= high):
            raise BadInput(file=entry.file, field=f"{where}.{key}", value=value,
                           expected=f"a number from {low:g} to {high:g}",
                           remedy=declared[key].metadata["description"])
        if low is None and not _alike(value, declared[key].default):
            raise BadInput(file=entry.file, field=f"{where}.{key}", value=value,
                           expected=f"something of the form of {_example(declared[key].default)}",
                           remedy="Correct the value.")
    missing = [name for name, column in declared.items()
               if name not in values and column.default is MISSING and column.default_factory is MISSING]
    if missing:
        raise BadInput(file=entry.file, field=f"{where}.{missing[0]}", value=None, expected="a number",
                       remedy=declared[missing[0]].metadata.get("description", "Give it."))
    return kind(**{key: _frozen(value) for key, value in values.items()})


def _alike(value: Any, default: Any) -> bool:
    """Whether `value` can stand for `default`: a text for a text, a number for a number, a table row by row."""
    if isinstance(default, tuple):
        rows_alike = default and isinstance(value, list) and value
        return bool(rows_alike) and all(_alike(item, default[0]) for item in value) and (
            not isinstance(default[0], tuple) or all(len(item) == len(default[0]) for item in value))
    if isinstance(default, (int, float)):
        return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < math.inf
    return default is MISSING or isinstance(value, type(default))


def _example(default: Any) -> str:
    return repr([list(row) if isinstance(row, tuple) else row for row in default[:2]] if isinstance(default, tuple)
                else default)


def _number(entry: Entry, fact: str, default: float) -> float:
    value = entry.facts.get(fact, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 10:
        raise BadInput(file=entry.file, field=f"facts.{fact}", value=value, expected="a fraction above 0, e.g. 0.2",
                       remedy="Give the half-width of an 80 % interval of a kernel time as a fraction.")
    return float(value)


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value


@functools.cache
def _read_cached(name: str) -> KernelProfile:
    return read_profile(name)
