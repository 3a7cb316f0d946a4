"""Nouns of display: what a picture is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

__all__ = ["Bar", "Curve", "Line", "Section", "Span", "Stack", "Tiles"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One bar of a waterfall: a level that stands on the ground, or a step that starts where the last one ended."""

    label: str
    value: float
    low: float | None = None
    high: float | None = None
    kind: Literal["level", "step"] = "step"
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """One block of a timeline: a row's label, start and length in seconds, and its cause (which gives the colour)."""

    row: str
    start_s: float
    duration_s: float
    cause: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """One stacked bar: parts by cause, and the limit that must hold them (0 = none)."""

    label: str
    parts: Sequence[tuple[str, float]]
    limit: float = 0.0
    unit: str = "bytes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """One line of a chart: points in order of x. Curves of a section share their axes."""

    label: str
    x: Sequence[float]
    y: Sequence[float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiles:
    """Squares under one label: how full each is, and how much of the time it was down, 0 to 1."""

    label: str
    values: Sequence[float]
    down: Sequence[float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """Shares, 0 to 1, at even steps of time."""

    label: str
    shares: Sequence[float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One part of a page: a heading, a sentence, and a picture or a table (rows of text)."""

    title: str
    text: str = ""
    bars: Sequence[Bar] = ()
    unit: str = ""
    less_is_better: bool | None = False
    spans: Sequence[Span] = ()
    stacks: Sequence[Stack] = ()
    curves: Sequence[Curve] = ()
    axes: tuple[str, str] = ("", "")
    tiles: Sequence[Tiles] = ()
    lines: Sequence[Line] = ()
    across: str = ""
    header: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
