"""Jobs of a synthetic mix: Poisson arrivals whose rate swings over the day, log-normal durations.

Axes: J = one submission, in the order of arrival.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from serried.clock import DAY_NS, SECOND_NS, Chance
from serried.errors import BadInput
from serried.fleet import Job
from serried.simulation.spec import Ints, JobClass, Submissions

__all__ = ["draw_submissions", "merged"]

_MOST_JOBS = 20_000_000
_PEAK_NS = 14 * DAY_NS // 24   # people submit most after lunch


def draw_submissions(classes: Sequence[JobClass], *, end_ns: int, chance: Chance) -> Submissions:
    """Every job of every class that arrives before `end_ns`."""
    return merged([_of_class(one, end_ns, chance.stream("jobs", one.name)) for one in classes])


def merged(parts: Sequence[Submissions]) -> Submissions:
    """Several sources of jobs as one, in the order of arrival; of equal times, the first source's first."""
    if not parts:
        none = np.empty(0, dtype=np.int64)
        return Submissions(arrival_ns_J=none, work_ns_J=none, class_J=none.astype(np.int32), jobs_J=(), class_names=(),
                           checkpoints=())
    offsets = np.cumsum([0, *(len(part.class_names) for part in parts)])
    arrival_ns = np.concatenate([part.arrival_ns_J for part in parts])
    order = np.argsort(arrival_ns, kind="stable")
    jobs = [job for part in parts for job in part.jobs_J]
    return Submissions(
        arrival_ns_J=arrival_ns[order], work_ns_J=np.concatenate([part.work_ns_J for part in parts])[order],
        class_J=np.concatenate([part.class_J + offset for part, offset in zip(parts, offsets, strict=False)]
                               )[order].astype(np.int32),
        jobs_J=[jobs[place] for place in order.tolist()],
        class_names=tuple(name for part in parts for name in part.class_names),
        checkpoints=tuple(one for part in parts for one in part.checkpoints))


def _of_class(one: JobClass, end_ns: int, random: np.random.Generator) -> Submissions:
    arrival_ns = _arrivals_ns(one, end_ns, random)
    count = len(arrival_ns)
    shape = random.choice(len(one.shapes_Z), size=count, p=_shares(one.weights_Z))
    tenant = np.array([number for number, _ in one.tenants])[
        random.choice(len(one.tenants), size=count, p=_shares([weight for _, weight in one.tenants]))]
    work_ns = np.clip(one.median_ns * np.exp(one.spread * random.standard_normal(count)), SECOND_NS,
                      one.longest_ns).astype(np.int64)
    said_ns = np.maximum(work_ns * one.estimate_ratio, 1).astype(np.int64)
    jobs = [Job(name=one.name, shape=one.shapes_Z[place], tenant=owner, priority=one.priority,
                preemptible=one.preemptible, runtime_ns=runtime_ns)
            for place, owner, runtime_ns in zip(size.tolist(), tenant.tolist(), said_ns.tolist(), strict=True)]
    return Submissions(arrival_ns_J=arrival_ns, work_ns_J=work_ns, class_J=np.zeros(count, dtype=np.int32),
                       jobs_J=jobs, class_names=(one.name,), checkpoints=(one.checkpoint,))


def _arrivals_ns(one: JobClass, end_ns: int, random: np.random.Generator) -> Ints:
    """Arrivals at the highest rate, each kept with the chance that the rate then is of it."""
    highest_per_s = one.arrivals_per_s * (1.0 + one.daily_swing)
    expected = highest_per_s * end_ns / SECOND_NS
    if expected > _MOST_JOBS:
        raise BadInput(field=f"jobs {one.name}", value=one.arrivals_per_s, expected=f"at most {_MOST_JOBS:,} jobs",
                       remedy=f"{expected:,.3g} would come: check the unit of arrivals.")
    time_ns = np.sort((random.random(int(random.poisson(expected))) * end_ns).astype(np.int64))
    phase = 2.0 * np.pi * ((time_ns - _PEAK_NS) % DAY_NS) / DAY_NS
    kept = random.random(len(time_ns)) * (1.0 + one.daily_swing) < 1.0 + one.daily_swing * np.cos(phase)
    return np.concatenate([np.zeros(one.backlog, dtype=np.int64), time_ns[kept]])


def _shares(weights: Sequence[float]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    column = np.asarray(weights, dtype=np.float64)
    return np.asarray(column / column.sum())
