"""What a service promises: times that a request of a class must keep, and how many do.

    ttft=1s,tpot=40ms                         for every class
    chat:ttft=1s,tpot=40ms;batch:e2e=60s      by class

Axes: R = request.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from serried.errors import BadInput, nearest
from serried.units import parse_quantity
from serried.workload.spec import Floats

__all__ = ["OBJECTIVES", "Objectives", "parse_objectives"]

#: Objective -> what it bounds.
OBJECTIVES: Mapping[str, str] = {
    "ttft": "time to the first token", "tpot": "mean time between a request's later tokens",
    "e2e": "time from arrival to the last token", "queue": "time from arrival to being scheduled"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Objectives:
    """Most seconds by objective: for each class that is named, and for all others ("")."""

    most_s: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return any(self.most_s.values())

    def of(self, name: str) -> Mapping[str, float]:
        """The objectives of one class."""
        return self.most_s.get(name, self.most_s.get("", {}))

    def met(self, times_s: Mapping[str, Floats], class_R: NDArray[np.int64],
            class_names: tuple[str, ...]) -> NDArray[np.bool_]:
        """Which requests keep every objective of their class. A time that is NaN (it never came) keeps none, but an
        answer of one token has no time between tokens to break (see `request_times_s`)."""
        met_R = np.ones(len(class_R), dtype=bool)
        for code, name in enumerate(class_names):
            for objective, most_s in self.of(name).items():
                time_s = times_s[objective]
                met_R &= (class_R != code) | (time_s <= most_s) | (np.isnan(time_s) & (objective == "tpot"))
        return met_R

    def refuse_unknown(self, class_names: Iterable[str], field_name: str = "--slo") -> None:
        """BadInput when a class is named that no request has."""
        known = list(class_names)
        for name in self.most_s:
            if name and name not in known:
                raise BadInput(field=field_name, value=name, expected=f"a class of the traffic: {', '.join(known)}",
                               remedy=f"Nearest: {', '.join(nearest(name, known) or known)}.")


def parse_objectives(text: str | None, field_name: str = "--slo") -> Objectives:
    """Read objectives as people write them; BadInput names what is not known."""
    most_s: dict[str, dict[str, float]] = {}
    for part in filter(None, (piece.strip() for piece in (text or "").split(";"))):
        name, colon, listed = part.partition(":")
        group = most_s.setdefault(name.strip() if colon else "", {})
        for one in (listed if colon else part).split(","):
            objective, equals, value = (word.strip() for word in one.partition("="))
            if objective not in OBJECTIVES or not equals:
                near = nearest(objective, OBJECTIVES) or list(OBJECTIVES)
                raise BadInput(field=field_name, value=one, expected="OBJECTIVE=TIME, e.g. ttft=1s,tpot=40ms",
                               remedy=f"Known: {', '.join(near)}.")
            if objective in group:
                raise BadInput(field=field_name, value=one, expected=f"{objective} once for a class",
                               remedy="Leave one of them out.")
            group[objective] = parse_quantity(value, "s", field=field_name)
            if group[objective] <= 0:
                raise BadInput(field=field_name, value=one, expected="a time above zero", remedy="Write tpot=40ms.")
    return Objectives(most_s=most_s)
