"""Words of measure: text with a unit at the door, bare float64 in SI base units inside.

Inside the house a number is in s, bytes, flop, W, J, Hz, usd or usd/s and its name says so. Prefixes are
decimal (1 GB = 1e9 bytes) unless they are binary (1 GiB = 2**30 bytes); a bit is an eighth of a byte.
"""

from __future__ import annotations

import math
import re

from serried.errors import BadInput

__all__ = ["format_quantity", "parse_quantity", "significant"]

_PREFIX = {"": 1.0, "n": 1e-9, "u": 1e-6, "µ": 1e-6, "m": 1e-3, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9,
           "T": 1e12, "P": 1e15, "E": 1e18,
           "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40}
_BASE = {"bytes": ("bytes", 1.0), "byte": ("bytes", 1.0), "B": ("bytes", 1.0), "bit": ("bytes", 0.125),
         "b": ("bytes", 0.125), "flop": ("flop", 1.0), "FLOP": ("flop", 1.0), "OP": ("flop", 1.0),
         "s": ("s", 1.0), "min": ("s", 60.0), "h": ("s", 3600.0),
         "day": ("s", 86400.0), "days": ("s", 86400.0), "W": ("W", 1.0), "J": ("J", 1.0),
         "Wh": ("J", 3600.0), "year": ("s", 31_557_600.0), "years": ("s", 31_557_600.0), "Hz": ("Hz", 1.0),
         "usd": ("usd", 1.0), "USD": ("usd", 1.0), "tokens": ("tokens", 1.0), "": ("1", 1.0)}
_NUMBER = re.compile(r"^\s*([-+]?\d[\d_,]*(?:\.\d+)?(?:[eE][-+]?\d+)?)\s*(.*?)\s*$")


def parse_quantity(text: str | float, unit: str, *, field: str = "quantity", file: str = "") -> float:
    """Read `text` such as "3.35 TB/s" as a float in the base `unit` (e.g. "bytes/s").

    A bare number is taken to be in the base unit already. Raises BadInput on anything else.
    """
    if isinstance(text, (int, float)) and not isinstance(text, bool):
        return _finite(float(text) if abs(text) < 1e308 else math.inf, text, unit, field, file)
    match = _NUMBER.match(text) if isinstance(text, str) else None
    if match is None:
        raise BadInput(file=file, field=field, value=text, expected=f'a number with a unit of {unit}',
                       remedy='Write for example "3.35 TB/s".')
    value = float(match.group(1).replace(",", "").replace("_", ""))
    found, factor = _unit(match.group(2))
    if found not in (unit, "1"):
        raise BadInput(file=file, field=field, value=text, expected=f"a quantity in {unit}",
                       remedy=f"{match.group(2)!r} measures {found or 'nothing that is known here'}.")
    return _finite(value * factor, text, unit, field, file)


def _finite(value: float, text: object, unit: str, field: str, file: str) -> float:
    if not math.isfinite(value):
        raise BadInput(file=file, field=field, value=text, expected=f"a finite quantity in {unit}",
                       remedy="Leave out what is unknown.")
    return value


def _unit(text: str) -> tuple[str, float]:
    """Base unit and factor of a unit text; ("", 0) when it is not understood."""
    factor, names = 1.0, []
    for position, part in enumerate(text.split("/")):
        name, scale = _simple_unit(part.strip())
        if not name:
            return "", 0.0
        names.append(name)
        factor = factor * scale if position == 0 else factor / scale
    return "/".join(names), factor


def _simple_unit(text: str) -> tuple[str, float]:
    for prefix in sorted(_PREFIX, key=len, reverse=True):
        if text.startswith(prefix) and text[len(prefix):] in _BASE:
            name, scale = _BASE[text[len(prefix):]]
            return name, scale * _PREFIX[prefix]
    return "", 0.0


def format_quantity(value: float, unit: str, *, digits: int = 3) -> str:
    """`value` in base `unit` as text for people with the prefix that fits: 3.35e12, "bytes/s" -> "3.35 TB/s"."""
    if value is None or not math.isfinite(value):
        return "unknown"
    shown = unit.replace("bytes", "B").replace("flop", "FLOP")
    if unit == "usd/s":   # people hire by the hour
        return f"{value * 3600.0:.{digits}g} usd/h"
    if unit == "s" and abs(value) >= _BASE["year"][1]:   # what lasts is counted in years
        return f"{value / _BASE['year'][1]:.{digits}g} years"
    if unit == "usd/J":
        return f"{value * 3.6e6:.{digits}g} usd/kWh"
    if abs(value) >= 10.0**digits - 0.5 and unit in ("1", "usd", "tokens"):   # counts and money in full, never 1.2e+04
        return f"{value:,.0f} {shown}".removesuffix(" 1")
    if value == 0 or unit in ("1", "usd", "tokens"):
        return f"{value:,.{digits}g} {shown}".removesuffix(" 1")
    for prefix in ("P", "T", "G", "M", "k", "", "m", "µ", "n"):
        if abs(value) >= _PREFIX[prefix]:
            return f"{value / _PREFIX[prefix]:.{digits}g} {prefix}{shown}"
    return f"{value:.{digits}g} {shown}"


def significant(value: float, digits: int = 3) -> str:
    """`value` to so many significant digits without an exponent, thousands set apart: 1013.2 -> "1,010"."""
    if not math.isfinite(value):
        return "unknown"
    if value == 0:
        return "0"
    places = digits - 1 - math.floor(math.log10(abs(value)))
    if places > 9:
        return f"{value:.{digits}g}"
    return f"{round(value, places):,.{max(places, 0)}f}"
