"""Nouns of insight: the layers of a gap, its bars, and what follows from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from serried.economics import Cost
from serried.planner.spec import Layouts
from serried.serving.spec import Deployments
from serried.workload.spec import Serving, Training

__all__ = ["LAYERS", "LAYER_OF_PARAMETER", "Action", "Bar", "Diagnosis", "Explanation", "Interval",
           "MeasuredPoint", "Parity", "Physical", "Side", "Waterfall"]

#: The layers of a gap, from the ground up. Each is a switch between two settings; the game is over these seven.
LAYERS: Mapping[str, str] = {
    "silicon": "chip figures, wires and their count: engines, memories, links",
    "kernels": "kernel profile, rate ratios of the stack, and what it leaves unfused",
    "precision": "number format of the matrix products",
    "layout": "degrees and choices of the layout; one that the silicon cannot hold falls back to the silicon's own",
    "collectives": "collective library: its profile on the wires and its rate in the running job",
    "schedule_and_overlap": "what runs beside compute, and what stragglers cost",
    "host": "launches kernel by kernel or captured, and what the host does between steps",
}

#: Which layer a parameter of the stack belongs to.
LAYER_OF_PARAMETER: Mapping[str, str] = {
    "gemm_rate_ratio": "kernels", "attention_rate_ratio": "kernels", "unfused_fraction": "kernels",
    "collective_rate_ratio": "collectives",
    "data_overlap": "schedule_and_overlap", "tensor_overlap": "schedule_and_overlap",
    "jitter_per_doubling": "schedule_and_overlap",
    "host_s_per_operator": "host", "host_s_per_step": "host",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A value with its 80 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """What one layer contributes to a gap; negative when the layer is a lead.

    gap_ln: share of ln(throughput ratio). gap_s: share of the difference in seconds for the unit of work. percent:
    gap_s over the fleet's seconds. from_setting, to_setting: the two settings of the switch, in words.
    """

    layer: str
    gap_ln: Interval
    gap_s: Interval
    percent: float
    from_setting: str
    to_setting: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One side of a comparison as simulated.

    time_s: seconds of the unit of work with as many chips as the fleet has (training: one step; serving: chip-seconds
    for 1,000 output tokens). figures: ttft, tpot, step time, memory, ... with units in their names.
    """

    name: str
    chip: str
    chip_count: int
    stack: str
    stack_source: str
    number_format: str
    layout: Mapping[str, int | bool | str]
    tokens_per_s: Interval
    tokens_per_s_per_chip: Interval
    time_s: Interval
    time_by_cause_s: Mapping[str, float]
    figures: Mapping[str, float]
    evidence_class: str
    cost: Cost


@dataclass(frozen=True, slots=True, kw_only=True)
class Physical:
    """What is left when the software of both sides is perfect, split by what binds; adds up to gap_ln.

    Shapley values of swapping the chip's engines, its memories and its wires for the rival's. scale: what the other
    count of chips, and the layout that goes with it, makes of them.
    """

    gap_ln: float
    compute_ln: float
    memory_ln: float
    fabric_ln: float
    scale_ln: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """Fleet over rival, by chip, by dollar and by watt; NaN where a figure is unknown, and `unknown` names it.

    chips_for_parity: fleet chips that match the whole rival, at this throughput per chip. break_even_price_usd,
    break_even_rent_usd_per_s: of one fleet chip, at which a token costs the same on both.
    """

    per_chip: Interval
    per_fleet: Interval
    per_usd: float
    per_joule: float
    chips_for_parity: float
    break_even_price_usd: float
    break_even_rent_usd_per_s: float
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One thing to do next: a layer, the parameter it moves, in plain words, and the throughput it should add."""

    layer: str
    parameter: str
    words: str
    from_setting: str
    to_setting: str
    gain: Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Waterfall:
    """The gap between a fleet and a rival, explained.

    gap_ln: ln(rival's throughput per chip / fleet's). bars: the seven layers from the fleet as it stands to the rival
    as it stands; they add up to gap_ln and, in seconds, to the difference of the two times. recoverable: the same
    switches from the present software to perfect software on the fleet's own silicon (gains positive). closed: likewise
    from plain software (eager, unfused, nothing hidden, 16 bits, a layout by rule of thumb) to the present. physical:
    what remains between the two silicons when both have perfect software.
    """

    kind: str
    job: str
    unit_of_work: str
    fleet: Side
    rival: Side
    gap_ln: Interval
    bars: Sequence[Bar]
    recoverable_ln: Interval
    recoverable: Sequence[Bar]
    closed_ln: Interval
    closed: Sequence[Bar]
    physical: Physical
    parity: Parity
    actions: Sequence[Action]
    evaluated: int
    seed: int
    notes: Sequence[str] = field(default_factory=tuple)


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredPoint:
    """One figure that a user measured.

    metric: a key of evidence.serving.METRICS, or "step_time" (s). value: in `unit`. layout: a table of one row, None
    when the measurement does not say how the job was laid out. eager, fused, kernels: what is known of launches and
    fusion; kernels of one prefill or decode step, 0 = unknown.
    """

    label: str
    metric: str
    value: float
    unit: str
    job: Serving | Training
    layout: Deployments | Layouts | None = None
    number_format: str = ""
    eager: bool | None = None
    fused: bool | None = None
    kernels: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """One combination of layer settings, how probable it is given the points, and what it predicts for them.

    parameters: of the stack that these settings amount to, by their names.
    """

    settings: Mapping[str, str]
    parameters: Mapping[str, float]
    probability: float
    log_likelihood: float
    predicted: Sequence[float]
    rms_error_ln: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """Explanations of measured points, most probable first; marginals: probability of each setting of each layer."""

    points: Sequence[MeasuredPoint]
    explanations: Sequence[Explanation]
    marginals: Mapping[str, Mapping[str, float]]
    combinations: int
    skipped: Sequence[str] = ()
