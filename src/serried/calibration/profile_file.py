"""Write a kernel profile as the file it is read from, every parameter with its unit and meaning."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from serried.catalogue.entry import read_toml
from serried.compiler import FAMILIES, KernelFit

__all__ = ["profile_text", "write_profile"]

_HEAD = ("# Made by `python -m serried.calibration` from the calibrate half of the shipped measurements.\n"
         "# What is not fitted (tiles, limits, library) is edited here and kept.\n")


def write_profile(path: Path, fitted: Mapping[str, Mapping[str, tuple[Any, KernelFit]]]) -> None:
    """Replace the fitted families and variants in the profile at `path`; keep everything else that stands there."""
    raw = read_toml(path)
    for family, variants in fitted.items():
        for variant, (parameters, fit) in variants.items():
            table = dataclasses.asdict(parameters)
            told = {name: value for name, value in dataclasses.asdict(fit).items() if value != ""}
            raw.setdefault(family, {})[variant] = table | {"fit": told}
    path.write_text(profile_text(raw), encoding="utf-8")


def profile_text(raw: Mapping[str, Any], *, head: str = _HEAD) -> str:
    """A profile's tables as TOML; a parameter's line ends in its unit and meaning."""
    lines = [head]
    lines += [f"{key} = {_value(value)}" for key, value in raw.items() if not isinstance(value, dict)]
    lines += ["", "[facts]", *(f"{key} = {_value(value)}" for key, value in raw.get("facts", {}).items())]
    for family in (name for name in FAMILIES if name in raw):
        told = {column.name: column.metadata for column in dataclasses.fields(FAMILIES[family])}
        for variant, table in raw[family].items():
            lines += ["", f"[{family}.{_key(variant)}]"]
            for name, value in table.items():
                if name == "fit":
                    continue
                about: Mapping[str, Any] = told.get(name, {})
                note = f"  # {about['unit']}: {about['description']}" if "description" in about else ""
                lines.append(f"{name} = {_value(value)}{note}")
            if table.get("fit"):
                lines += [f"[{family}.{_key(variant)}.fit]",
                          *(f"{name} = {_value(value)}" for name, value in table["fit"].items())]
    return "\n".join(lines) + "\n"


def _key(name: str) -> str:
    return name if name.replace("-", "").replace("_", "").isalnum() else f'"{name}"'


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return repr(value)
