"""The game behind a waterfall: two ends, seven switches, and a simulation of every combination.

Axes: C = coalition (2**7), X = draw of the uncertain parameters.

`End` 0 is where the waterfall starts, `End` 1 is where it ends. In a coalition every layer whose switch is on is taken
from end 1, the others from end 0. Silicon carries the chip, the wires and their count. A layout that cannot stand on a
silicon (rule broken, or memory) is replaced by that silicon's own, so that only what can run is simulated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from serried.errors import BadInput, nearest
from serried.insight.shapley import coalitions, shapley_values
from serried.insight.spec import LAYER_OF_PARAMETER, LAYERS
from serried.planner.spec import FORMATS, Machine
from serried.software import STACK_PARAMETERS
from serried.workload.spec import Floats

__all__ = ["COALITIONS", "End", "Simulate", "StackDraws", "bars_of", "distinct_machines", "draw_stacks", "hybrid",
           "known_format", "stack_values"]

L_co = TypeVar("L_co", covariant=True)
COALITIONS: NDArray[np.bool_] = coalitions(len(LAYERS))
_LAYER_INDEX = {layer: index for index, layer in enumerate(LAYERS)}
_Z80 = 1.2815515655446004  # half-width of the central 80 % of a normal distribution, in standard deviations

#: Draws of a stack's parameters: name to (X,) values.
StackDraws = Mapping[str, Floats]


@dataclass(frozen=True, slots=True, kw_only=True)
class End(Generic[L_co]):
    """One end of every switch. layout: a table of one row (Deployments or Layouts) that stands on this machine."""

    machine: Machine
    number_format: str
    layout: L_co


class Simulate(Protocol):
    """What simulates coalitions."""

    def __call__(self, on_C7: NDArray[np.bool_], stack: Mapping[str, Floats]) -> Floats:
        """Seconds of the unit of work for coalitions on_C7 with stack parameters (X, C): returns (X, C)."""


def known_format(number_format: str) -> str:
    """`number_format` when it is a recipe; BadInput with the nearest ones otherwise."""
    if number_format not in FORMATS:
        near = nearest(number_format, FORMATS)
        raise BadInput(field="number format", value=number_format, expected=f"one of {', '.join(FORMATS)}",
                       remedy=f"Nearest: {', '.join(near)}." if near else "Choose one of these.")
    return number_format


def hybrid(ends: tuple[End[L_co], End[L_co]], *, silicon: int, kernels: int, collectives: int) -> Machine:
    """The machine of a coalition: chip, wires and count of one end, kernel and collective libraries of others."""
    base = ends[silicon].machine
    fabric = base.fabric if collectives == silicon else replace(
        base.fabric, profile=ends[collectives].machine.fabric.profile)
    return replace(base, profile=ends[kernels].machine.profile, fabric=fabric)


def distinct_machines(ends: tuple[End[L_co], End[L_co]]) -> tuple[list[tuple[int, Machine]], NDArray[np.intp]]:
    """Machines that silicon, kernels and collectives make of two ends, each once, with the end of its silicon; and
    which of them a combination [silicon, kernels, collectives] is."""
    found: list[tuple[int, Machine]] = []
    which = np.zeros((2, 2, 2), dtype=np.intp)
    for silicon, kernels, collectives in np.ndindex(2, 2, 2):
        machine = replace(hybrid(ends, silicon=silicon, kernels=kernels, collectives=collectives),
                          stack=ends[kernels].machine.stack)
        same = [index for index, (_, other) in enumerate(found) if _same_tables(machine, other)]
        which[silicon, kernels, collectives] = same[0] if same else len(found)
        if not same:
            found.append((silicon, machine))
    return found, which


def _same_tables(one: Machine, other: Machine) -> bool:
    """Whether two machines have the same kernel and collective times; the parameters of a stack do not matter here."""
    return (one.chip is other.chip and one.profile == other.profile and one.chip_count == other.chip_count
            and one.fabric == other.fabric and one.stack.facts == other.stack.facts)


def draw_stacks(machine: Machine, count: int, seed: int) -> dict[str, Floats]:
    """Draws of the stack's parameters, (1 + count,) each; entry 0 is central.

    Independent normals with the spreads as 80 % half-widths, held within the legal range.
    """
    chance = np.random.default_rng(seed)
    found: dict[str, Floats] = {}
    for name, central in machine.stack.parameters.items():
        half_width = machine.stack.spreads.get(name, 0.0)
        values = np.concatenate([[central], central + half_width / _Z80 * chance.standard_normal(count)])
        legal = STACK_PARAMETERS.get(name)
        if legal is not None:
            values[1:] = np.clip(values[1:], min(legal.low, central), max(legal.high, central))
        found[name] = values
    return found


def stack_values(draws: tuple[StackDraws, StackDraws], on_C7: NDArray[np.bool_]) -> dict[str, Floats]:
    """Every stack parameter per draw and coalition, (X, C), taken from the end that its layer's switch points to."""
    names = sorted({*draws[0], *draws[1]})
    perfect = {name: STACK_PARAMETERS[name].perfect if name in STACK_PARAMETERS else 0.0 for name in names}
    count = max(len(values) for side in draws for values in side.values())
    found = {}
    for name in names:
        low, high = (side.get(name, np.full(count, perfect[name])) for side in draws)
        switch_C = on_C7[:, _LAYER_INDEX[LAYER_OF_PARAMETER.get(name, "kernels")]]
        found[name] = np.where(switch_C[None, :], high[:, None], low[:, None])
    return found


def bars_of(time_s_XC: Floats) -> tuple[Floats, Floats]:
    """Shapley bars (7, X) of a play: in ln of throughput (end 1 faster is positive) and in seconds saved."""
    time_CX = time_s_XC.T
    return shapley_values(-np.log(time_CX)), shapley_values(-time_CX)


def half_width(values_X: Floats) -> tuple[float, float]:
    """Distances from the central value (entry 0) down and up to the 10 % and 90 % quantiles of the draws."""
    if len(values_X) < 3:
        return 0.0, 0.0
    low, high = np.quantile(values_X[1:], [0.1, 0.9])
    return max(float(values_X[0] - low), 0.0), max(float(high - values_X[0]), 0.0)


def standing_layouts(ends: tuple[End[L_co], End[L_co]],
                     stands: Callable[[int, L_co], L_co | None]) -> tuple[tuple[L_co, L_co], tuple[L_co, L_co]]:
    """layouts[silicon][layout]: the layout of each end on each silicon, its own where the other's cannot stand.

    stands(silicon, layout): the layout as that silicon would run it, or None.
    """
    found = []
    for silicon in (0, 1):
        own = ends[silicon].layout
        other = stands(silicon, ends[1 - silicon].layout) or own
        found.append((own, other) if silicon == 0 else (other, own))
    return found[0], found[1]
