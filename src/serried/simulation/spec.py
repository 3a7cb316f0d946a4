"""Nouns of the simulation: what can break, what is asked for and when, how work is saved.

Axes: J = submission in the order of arrival, K = kind of chip, Z = size of a gang that a class of jobs may ask for.
Times are whole nanoseconds of virtual time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from serried.economics import DEFAULT_TARIFF, Tariff
from serried.fleet import Fleet, Job, Shape
from serried.fleet.rules import Rules
from serried.silicon import Chip

__all__ = ["Checkpoint", "Effect", "Fault", "JobClass", "Scenario", "Service", "Submissions"]

Ints = NDArray[np.int64]
#: What a fault does: takes its nodes (or its one chip) out until repaired, or makes its node slow.
Effect = Literal["down", "slow"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One way in which something breaks.

    component: "chip" (that chip alone is lost), "link" (one per chip; its node is lost), "node", or a switch level of
    the fleet (every node under the switch is lost together). rate_per_s: of one component that works. detection_ns:
    from the fault until the fleet knows; until then jobs hang on it. Repair takes a log-normal time with this median
    and standard deviation of the logarithm. pace: of a "slow" node, 0 to 1; a gang goes at its slowest node's pace.
    """

    name: str
    component: str
    rate_per_s: float
    detection_ns: int = 0
    repair_median_ns: int = 0
    repair_spread: float = 0.0
    effect: Effect = "down"
    pace: float = 1.0
    status: str = "assumed"
    source: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """How a job saves its work. interval_ns: of work between two saves; 0 = the optimum for the gang's failure rate.

    write_ns: so long a save stops the gang. restart_ns: from having its chips to working again.
    """

    interval_ns: int = 0
    write_ns: int = 0
    restart_ns: int = 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class JobClass:
    """A stream of alike jobs, arriving at random.

    shapes_Z: one per size, drawn with `weights_Z`. Durations are log-normal with this median and standard deviation of
    the logarithm, cut at longest_ns. tenants: who submits, with weights. daily_swing: by how much the rate of arrival
    rises and falls over a day, as a share of its mean. estimate_ratio: what users say of the duration, over the truth.
    backlog: so many wait when the run begins.
    """

    name: str
    arrivals_per_s: float
    shapes_Z: tuple[Shape, ...]
    weights_Z: tuple[float, ...]
    median_ns: int
    spread: float
    longest_ns: int
    tenants: tuple[tuple[int, float], ...]
    checkpoint: Checkpoint
    priority: int = 0
    preemptible: bool = True
    daily_swing: float = 0.0
    estimate_ratio: float = 1.0
    backlog: int = 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Service:
    """Replicas that follow a load. Load is counted in replicas that it would keep busy.

    Over a day it runs from base_load to peak_load as a cosine with its top at peak_hour, with log-normal noise per step
    of scaling. So many replicas are wanted that each is busy for target_ratio of its time.
    """

    name: str
    shape: Shape
    tenant: int
    base_load: float
    peak_load: float
    peak_hour: float = 14.0
    noise: float = 0.0
    target_ratio: float = 0.7
    least_replicas: int = 1
    scaling_ns: int = 900_000_000_000
    start_ns: int = 0
    priority: int = 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Submissions:
    """Jobs as they come, as columns in the order of arrival. work_ns_J: how long each runs, undisturbed, on the first
    alternative of its shape. class_J: index into class_names; checkpoints: one per class."""

    arrival_ns_J: Ints
    work_ns_J: Ints
    class_J: NDArray[np.int32]
    jobs_J: Sequence[Job]
    class_names: tuple[str, ...]
    checkpoints: tuple[Checkpoint, ...]

    def __len__(self) -> int:
        return len(self.jobs_J)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scenario:
    """Everything that a run needs but its seed and its length.

    chips_K: the catalogue's chip of each kind, None where a kind is a word alone. price_usd_K: of one chip, where it
    is not the chip's own figure (None). decide_every_ns: the policy is asked
    at these steps of time; 0 = after everything that happens. measure: how single workers are placed.
    """

    name: str
    fleet: Fleet
    chips_K: tuple[Chip | None, ...]
    rules: Rules
    price_usd_K: tuple[float | None, ...] = ()
    faults: tuple[Fault, ...] = ()
    classes: tuple[JobClass, ...] = ()
    services: tuple[Service, ...] = ()
    trace: Submissions | None = None
    decide_every_ns: int = 0
    measure: str = "best-fit"
    policy: str = ""
    tariff: Tariff = field(default=DEFAULT_TARIFF)
    file: str = ""
