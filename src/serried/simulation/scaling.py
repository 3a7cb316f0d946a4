"""Replicas of services: who is there, who works, what of the load was served.

Axes: V = service.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from serried.clock import Chance
from serried.fleet import Job
from serried.simulation.services import draw_load, replicas_for
from serried.simulation.spec import Checkpoint, Service

__all__ = ["Replicas"]


class Replicas:
    """Replicas of every service. Load and service are in replica-nanoseconds: served = min(load, working) over time."""

    def __init__(self, services: Sequence[Service], *, first_class: int, end_ns: int, chance: Chance) -> None:
        self.services, self.first_class = services, first_class
        self.jobs = [Job(name=one.name, shape=one.shape, tenant=one.tenant, priority=one.priority, preemptible=False)
                     for one in services]
        self.checkpoints = tuple(Checkpoint(interval_ns=1, restart_ns=one.start_ns) for one in services)
        self._waiting: list[dict[int, None]] = [{} for _ in services]
        self._placed: list[list[int]] = [[] for _ in services]
        self.owner: dict[int, int] = {}
        self.offered_V, self.served_V = [0.0] * len(services), [0.0] * len(services)
        self._load_SV = [draw_load(one, end_ns=end_ns, chance=chance).tolist() for one in services]
        self._step_V, self._load_V, self._since_V = ([0] * len(services), [0.0] * len(services), [0] * len(services))
        self._working: list[set[int]] = [set() for _ in services]
        self._worked_V = [0] * len(services)   # thousandths of chips times nanoseconds
        self._worked_ns_V = [0] * len(services)   # of replicas

    def step(self, service: int, now_ns: int) -> int:
        """The load changes; returns how many replicas are wanted."""
        self._settle(service, now_ns)
        self._load_V[service] = self._load_SV[service][self._step_V[service]]
        self._step_V[service] += 1
        return replicas_for(self.services[service], self._load_V[service])

    def hire(self, service: int, number: int) -> None:
        """A replica was asked for."""
        self._waiting[service][number] = None
        self.owner[number] = service

    def count(self, service: int) -> int:
        """Replicas that run or wait."""
        return len(self._waiting[service]) + len(self._placed[service])

    def dismiss(self, service: int) -> int:
        """One replica goes: one that still waits, else the one that was placed last; returns its number."""
        return self._waiting[service].popitem()[0] if self._waiting[service] else self._placed[service].pop()

    def place(self, number: int) -> None:
        """A replica got its chips."""
        self._waiting[self.owner[number]].pop(number)
        self._placed[self.owner[number]].append(number)

    def displace(self, number: int) -> None:
        """A replica, if it is one, lost its chips and waits again."""
        service = self.owner.get(number)
        if service is not None:
            self._placed[service].remove(number)
            self._waiting[service][number] = None

    def work(self, number: int, now_ns: int) -> None:
        """A replica has started up."""
        self._settle(self.owner[number], now_ns)
        self._working[self.owner[number]].add(number)

    def rest(self, number: int, now_ns: int) -> None:
        """A replica, if it is one, stops working."""
        service = self.owner.get(number)
        if service is not None and number in self._working[service]:
            self._settle(service, now_ns)
            self._working[service].discard(number)

    def worked(self, number: int, saved_ns: int, milli: int) -> None:
        """Book what a replica, if it is one, worked in a stint on so many thousandths of chips."""
        service = self.owner.get(number)
        if service is not None:
            self._worked_ns_V[service] += saved_ns
            self._worked_V[service] += saved_ns * milli

    def close(self, end_ns: int) -> Iterator[tuple[int, int]]:
        """Per service, (served, worked) in thousandths of chips times nanoseconds."""
        for service in range(len(self.services)):
            self._settle(service, end_ns)
            worked = self._worked_V[service]
            milli = worked / max(self._worked_ns_V[service], 1)   # of the mean replica
            yield min(round(self.served_V[service] * milli), worked), worked

    def unserved_ratio(self, service: int) -> float:
        """The share of the load that came while too few replicas worked."""
        return 1.0 - self.served_V[service] / self.offered_V[service] if self.offered_V[service] else 0.0

    def _settle(self, service: int, now_ns: int) -> None:
        gone_ns = now_ns - self._since_V[service]
        self._since_V[service] = now_ns
        self.offered_V[service] += self._load_V[service] * gone_ns
        self.served_V[service] += min(self._load_V[service], float(len(self._working[service]))) * gone_ns


