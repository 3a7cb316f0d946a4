"""From simulations to a waterfall: bars with intervals, what software can recover, what is physical, parity, actions.

Axes: C = coalition, X = draw (entry 0 is central).

Three games are played: from the fleet as it stands to the rival as it stands; from the fleet's present software to
perfect software on its own silicon (what can be recovered); from plain software to the present (what is closed).

Intervals. The parameters of both stacks are drawn with their spreads and every draw plays the whole game. What the
model misses on chips of an evidence class (from residuals of measured cases), and the spreads of chip and wire figures,
act on everything that a silicon does, so they cancel between combinations on one silicon and widen the silicon bar
alone; they are added in quadrature as 80 % half-widths.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from serried.catalogue import Figure
from serried.economics import DEFAULT_TARIFF, Tariff, break_even_price_usd, break_even_rent_usd_per_s, cost_of
from serried.errors import NoAnswer
from serried.evidence.intervals import half_width as residual_half_width
from serried.insight.game import COALITIONS, End, bars_of, draw_stacks, half_width, stack_values
from serried.insight.shapley import coalitions, shapley_values
from serried.insight.spec import LAYERS, Action, Bar, Interval, Parity, Physical, Side, Waterfall
from serried.insight.words import ACTIONS, setting
from serried.planner.spec import Machine
from serried.software import STACK_PARAMETERS, perfect_stack
from serried.topology.fitted import fitted_profile
from serried.workload.spec import Floats

__all__ = ["Contest", "explain"]

L = TypeVar("L")

#: Figures that first-order intervals perturb; prices and power do not change a time.
_TIMED_FIGURES = ("matrix_peak", "vector_peak", "core_count", "clock", "scratchpad_per_core", "cache",
                  "cache_bandwidth", "hbm_bandwidth", "launch")
_COMPUTE = ("matrix_peak", "vector_peak", "core_count", "clock", "scratchpad_per_core", "launch")
_MEMORY = ("hbm_capacity", "hbm_bandwidth", "cache", "cache_bandwidth")


class Contest(Protocol[L]):
    """What a kind of job must say so that its gap can be explained."""

    kind: str
    job_words: str
    unit_of_work: str

    def best(self, machine: Machine, formats: Sequence[str]) -> End[L]:
        """The best layout and format by search."""

    def game(self, ends: tuple[End[L], End[L]]) -> Callable[[NDArray[np.bool_], Mapping[str, Floats]], Floats]:
        """Simulator of coalitions: seconds of the unit of work, (X, C)."""

    def time_s(self, end: End[L]) -> float:
        """Seconds of the unit of work of one end."""

    def plain(self, machine: Machine) -> End[L]:
        """What people start with: 16 bits, a layout by rule of thumb, nothing captured."""

    def times_s(self, end: End[L], stack: Mapping[str, Floats]) -> Floats:
        """Seconds of the unit of work of one end for stack parameters (G,); overlap is on where it is perfect."""

    def formats(self, machine: Machine) -> tuple[str, ...]:
        """Number formats that the chip's engines have and that this kind of job is run in."""

    def tokens_per_s_per_chip(self, time_s: float) -> float:
        """Rate of one chip from the seconds of the unit of work."""

    def describe(self, end: End[L]) -> tuple[Mapping[str, int | bool | str], Mapping[str, float], Mapping[str, float],
                                             float]:
        """Layout in words, time by cause of the unit of work, figures with units, and the busy fraction."""


def explain(contest: Contest[L], fleet: End[L], rival: End[L], *, draws: int = 64, seed: int = 0,
            tariff: Tariff = DEFAULT_TARIFF, notes: Sequence[str] = ()) -> Waterfall:
    """The waterfall between two ends as they stand. Deterministic in `seed`."""
    rival_seed = seed if rival.machine.stack.name == fleet.machine.stack.name else seed + 1
    stacks = draw_stacks(fleet.machine, draws, seed), draw_stacks(rival.machine, draws, rival_seed)
    time_XC = contest.game((fleet, rival))(COALITIONS, stack_values(stacks, COALITIONS))
    silicon = (silicon_half_width_ln(contest, fleet, time_XC[:, 0]),
               silicon_half_width_ln(contest, rival, time_XC[:, -1]))
    bars, gap = _bars(time_XC, silicon, (fleet, rival))

    perfect = _perfected(contest, fleet)
    none = {name: np.full(draws + 1, value) for name, value in perfect.machine.stack.parameters.items()}
    own_XC = contest.game((fleet, perfect))(COALITIONS, stack_values((stacks[0], none), COALITIONS))
    recoverable, recoverable_ln = _bars(own_XC, (0.0, 0.0), (fleet, perfect))
    closed, closed_ln = _closed(contest, fleet, stacks[0])
    sides = (_side(contest, "fleet", fleet, time_XC[:, 0], silicon[0], tariff),
             _side(contest, "rival", rival, time_XC[:, -1], silicon[1], tariff))
    return Waterfall(
        kind=contest.kind, job=contest.job_words, unit_of_work=contest.unit_of_work, fleet=sides[0], rival=sides[1],
        gap_ln=gap, bars=bars, recoverable_ln=recoverable_ln, recoverable=recoverable, closed_ln=closed_ln,
        closed=closed,
        physical=_physical(contest, perfect, _perfected(contest, rival)),
        parity=_parity(sides, (fleet.machine, rival.machine), gap, tariff,
                       [contest.describe(end)[3] for end in (fleet, rival)]),
        actions=_actions(contest, fleet, perfect), evaluated=3 * len(COALITIONS) * (draws + 1), seed=seed,
        notes=tuple(notes))


#: Software that fuses and hides nothing; rates of kernels and collectives are those of the present stack.
_PLAIN = {"unfused_fraction": 1.0, "data_overlap": 0.0, "tensor_overlap": 0.0}


def _closed(contest: Contest[L], fleet: End[L], stack: Mapping[str, Floats]) -> tuple[list[Bar], Interval]:
    """What the present software has gained over plain software on the same chips."""
    present = fleet.machine.stack
    machine = replace(fleet.machine, stack=replace(present, name="plain", parameters={
        name: float(values[0]) for name, values in _plain_draws(stack).items()}))
    try:
        start = contest.plain(machine)
    except NoAnswer:
        start = replace(fleet, machine=machine)
    time_XC = contest.game((start, fleet))(COALITIONS, stack_values((_plain_draws(stack), stack), COALITIONS))
    return _bars(time_XC, (0.0, 0.0), (start, fleet))


def _plain_draws(stack: Mapping[str, Floats]) -> dict[str, Floats]:
    return {name: np.maximum(values, _PLAIN[name]) if name == "unfused_fraction" else
            np.full_like(values, _PLAIN[name]) if name in _PLAIN else values for name, values in stack.items()}


def _bars(time_XC: Floats, silicon_ln: tuple[float, float], ends: tuple[End[L], End[L]]) -> tuple[list[Bar], Interval]:
    ln_IX, seconds_IX = bars_of(time_XC)
    start_s, end_s = float(time_XC[0, 0]), float(time_XC[0, -1])
    found = []
    for index, layer in enumerate(LAYERS):
        on_silicon = layer == "silicon"
        own_ln = math.hypot(*silicon_ln) if on_silicon else 0.0
        own_s = math.hypot(start_s * silicon_ln[0], end_s * silicon_ln[1]) if on_silicon else 0.0
        found.append(Bar(layer=layer, gap_ln=_interval(ln_IX[index], own_ln), gap_s=_interval(seconds_IX[index], own_s),
                         percent=100.0 * float(seconds_IX[index, 0]) / start_s,
                         from_setting=setting(layer, ends[0]), to_setting=setting(layer, ends[1])))
    return found, _interval(np.log(time_XC[:, 0] / time_XC[:, -1]), math.hypot(*silicon_ln))


def _interval(values_X: Floats, own_half_width: float) -> Interval:
    """Central value with the spread of the draws and an independent half-width in quadrature."""
    down, up = half_width(values_X)
    value = float(values_X[0])
    return Interval(value=value, low=value - math.hypot(down, own_half_width),
                    high=value + math.hypot(up, own_half_width))


def silicon_half_width_ln(contest: Contest[L], end: End[L], time_X: Floats) -> float:
    """80 % half-width of ln(time) that is not the stack's: of the model on a chip of this evidence class, and of the
    chip's and the wires' figures (first order).

    The residuals of measured cases hold what stacks are unsure of too; what the draws in `time_X` show already is
    taken off, so that a side's interval is as wide as its residuals were.
    """
    base = math.log(contest.time_s(end))
    chip, fabric = end.machine.chip, end.machine.fabric
    model_ln = residual_half_width(contest.kind, end.machine.profile.evidence_class, end.machine.stack.name)
    drawn_ln = 0.5 * sum(half_width(np.log(time_X)))
    squares = [max(model_ln**2 - drawn_ln**2, 0.0)]
    for name, figure in chip.figures.items():
        if figure.spread > 0 and name.partition(".")[0] in _TIMED_FIGURES:
            moved = replace(figure, value=figure.value * (1.0 + figure.spread))
            other = replace(end.machine, chip=replace(chip, figures={**chip.figures, name: moved}))
            squares.append((math.log(contest.time_s(replace(end, machine=other))) - base) ** 2)
    for index, tier in enumerate(fabric.tiers):
        spread = max((figure.spread for figure in tier.figures.values()), default=0.0)
        if spread > 0:
            wider = replace(tier, bandwidth_bytes_per_s=tier.bandwidth_bytes_per_s * (1.0 + spread))
            tiers = (*fabric.tiers[:index], wider, *fabric.tiers[index + 1:])
            other = replace(end.machine, fabric=replace(fabric, tiers=tiers))
            squares.append((math.log(contest.time_s(replace(end, machine=other))) - base) ** 2)
    return math.sqrt(math.fsum(squares))


def _perfected(contest: Contest[L], end: End[L]) -> End[L]:
    """The same silicon with perfect software: its stack, its fastest format, its best layout, fitted collectives."""
    fabric = end.machine.fabric
    machine = replace(end.machine, stack=perfect_stack(),
                      fabric=replace(fabric, profile=fitted_profile(fabric.profile)))
    return contest.best(machine, tuple(dict.fromkeys((end.number_format, *contest.formats(machine)))))


def _side(contest: Contest[L], name: str, end: End[L], time_X: Floats, silicon_ln: float, tariff: Tariff) -> Side:
    layout, causes, figures, busy = contest.describe(end)
    machine = end.machine
    rate = np.array([contest.tokens_per_s_per_chip(float(seconds)) for seconds in time_X])
    per_chip = _factor(rate, silicon_ln)
    count = machine.chip_count
    total = Interval(value=per_chip.value * count, low=per_chip.low * count, high=per_chip.high * count)
    return Side(name=name, chip=machine.chip.name, chip_count=count, stack=machine.stack.name,
                stack_source=machine.stack.source, number_format=end.number_format, layout=layout,
                tokens_per_s=total, tokens_per_s_per_chip=per_chip, time_s=_factor(time_X, silicon_ln),
                time_by_cause_s=causes, figures=figures, evidence_class=machine.profile.evidence_class,
                cost=cost_of(per_chip.value, busy, chip=machine.chip, tariff=tariff))


def _factor(values_X: Floats, silicon_ln: float) -> Interval:
    """Interval of a positive quantity whose half-widths are in ln."""
    found = _interval(np.log(values_X), silicon_ln)
    return Interval(value=math.exp(found.value), low=math.exp(found.low), high=math.exp(found.high))


def _physical(contest: Contest[L], fleet: End[L], rival: End[L]) -> Physical:
    """Swap engines, memories, wires, and what goes with the other silicon (layout, count), in every combination."""
    switches = coalitions(4)
    cached: dict[tuple[bool, ...], float] = {}
    time_C = np.array([cached.setdefault(tuple(on), contest.time_s(_grafted(fleet, rival, on))) for on in switches])
    compute, memory, fabric, scale = shapley_values(-np.log(time_C))
    return Physical(gap_ln=float(np.log(time_C[0] / time_C[-1])), compute_ln=float(compute), memory_ln=float(memory),
                    fabric_ln=float(fabric), scale_ln=float(scale))


def _grafted(fleet: End[L], rival: End[L], on: NDArray[np.bool_]) -> End[L]:
    """The fleet's perfect end with the rival's engines, memories, wires or scale where the switches are on."""
    compute, memory, wires, scale = (bool(switch) for switch in on)
    figures: dict[str, Figure] = {}
    for source, families in ((rival if compute else fleet, _COMPUTE), (rival if memory else fleet, _MEMORY)):
        figures |= {name: figure for name, figure in source.machine.chip.figures.items()
                    if name.partition(".")[0] in families}
    engines = (rival if compute else fleet).machine
    around = rival if scale else fleet
    machine = replace(fleet.machine, chip=replace(engines.chip, figures=figures), profile=engines.profile,
                      fabric=(rival if wires else fleet).machine.fabric, chip_count=around.machine.chip_count)
    return End(machine=machine, layout=around.layout,
               number_format=(rival if compute else fleet).number_format)


def _parity(sides: tuple[Side, Side], machines: tuple[Machine, Machine], gap: Interval, tariff: Tariff,
            busy: Sequence[float]) -> Parity:
    fleet, rival = sides
    per_chip = Interval(value=math.exp(-gap.value), low=math.exp(-gap.high), high=math.exp(-gap.low))
    counts = fleet.chip_count / rival.chip_count
    rate = fleet.tokens_per_s_per_chip.value
    rival_usd_per_token = rival.cost.usd_per_million_tokens / 1e6
    unknown = [f"{side.chip} {figure}" for side in sides for figure in side.cost.unknown]
    return Parity(
        per_chip=per_chip,
        per_fleet=Interval(value=per_chip.value * counts, low=per_chip.low * counts, high=per_chip.high * counts),
        per_usd=rival.cost.usd_per_million_tokens / fleet.cost.usd_per_million_tokens,
        per_joule=fleet.cost.tokens_per_j / rival.cost.tokens_per_j,
        chips_for_parity=math.ceil(rival.tokens_per_s.value / rate - 1e-9),
        break_even_price_usd=float(break_even_price_usd(rival_usd_per_token, rate, busy[0], chip=machines[0].chip,
                                                        tariff=tariff)),
        break_even_rent_usd_per_s=float(break_even_rent_usd_per_s(rival_usd_per_token, rate)), unknown=tuple(unknown))


def _actions(contest: Contest[L], fleet: End[L], perfect: End[L], *, top: int = 3) -> list[Action]:
    """Every single move from the present software to perfect, best expected gain first."""
    parameters, spreads = fleet.machine.stack.parameters, fleet.machine.stack.spreads
    names = [name for name, value in parameters.items()
             if value != STACK_PARAMETERS[name].perfect or spreads.get(name, 0.0) > 0]
    # Rows: the present; then for each parameter its value, its bounds, and perfect.
    rows = [dict(parameters)]
    for name in names:
        value, ideal = parameters[name], STACK_PARAMETERS[name].perfect
        rows += [{**parameters, name: moved} for moved in (value, *_legal(name, value, spreads.get(name, 0.0)), ideal)]
    time_G = contest.times_s(fleet, {name: np.array([row[name] for row in rows]) for name in parameters})
    present, found = float(time_G[0]), []
    for name, (now, low, high, ideal) in zip(names, time_G[1:].reshape(-1, 4), strict=True):
        gains = [float(start / ideal) - 1.0 for start in (now, low, high)]
        layer, words = ACTIONS[name]
        found.append(Action(layer=layer, parameter=name, words=words, from_setting=f"{parameters[name]:.3g}",
                            to_setting=f"{STACK_PARAMETERS[name].perfect:.3g}",
                            gain=Interval(value=gains[0], low=min(gains), high=max(gains))))
    for name, moved, before, after in (
            ("number_format", replace(fleet, number_format=perfect.number_format), fleet.number_format,
             perfect.number_format),
            ("layout", contest.best(fleet.machine, (fleet.number_format,)), setting("layout", fleet), "")):
        gain = present / contest.time_s(moved) - 1.0
        layer, words = ACTIONS[name]
        found.append(Action(layer=layer, parameter=name, words=words, from_setting=before,
                            to_setting=after or setting("layout", moved),
                            gain=Interval(value=gain, low=min(gain, 0.5 * gain), high=max(gain, 1.5 * gain))))
    found = [action for action in found if action.gain.value > 1e-4]
    return sorted(found, key=lambda action: -action.gain.value)[:top]


def _legal(name: str, value: float, half: float) -> tuple[float, float]:
    spec = STACK_PARAMETERS[name]
    return max(value - half, min(spec.low, value)), min(value + half, max(spec.high, value))
