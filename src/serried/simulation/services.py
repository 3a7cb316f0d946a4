"""What a service wants over the day."""

from __future__ import annotations

import math

import numpy as np

from serried.clock import DAY_NS, Chance
from serried.simulation.spec import Service
from serried.workload import Floats

__all__ = ["draw_load", "replicas_for"]


def draw_load(service: Service, *, end_ns: int, chance: Chance) -> Floats:
    """Load at every step of scaling before `end_ns`, in replicas that it would keep busy."""
    step_ns = np.arange(0, end_ns, service.scaling_ns, dtype=np.int64)
    phase = 2.0 * np.pi * ((step_ns % DAY_NS) / DAY_NS - service.peak_hour / 24.0)
    middle, swing = (service.peak_load + service.base_load) / 2.0, (service.peak_load - service.base_load) / 2.0
    noise = chance.stream("services", service.name).standard_normal(len(step_ns))
    return np.asarray((middle + swing * np.cos(phase)) * np.exp(service.noise * noise - service.noise**2 / 2.0))


def replicas_for(service: Service, load: float) -> int:
    """How many replicas make each busy for at most `target_ratio` of its time."""
    return max(service.least_replicas, math.ceil(load / service.target_ratio))
