"""Collectives on the wires: which algorithm, how long, and which links hold it back.

The time of an algorithm is the formula of `serried.fabric.algorithms` on the library's calibrated parameters; what
this file adds is the bandwidth that the wires leave it: its own traffic, routed, with failures, beside other jobs.

Axes: J = job; F = flow; C = class of flows; L = link.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from serried.errors import BadInput
from serried.fabric import Fabric
from serried.fabric.algorithms import ALGORITHMS, candidates
from serried.fabric.placement import place
from serried.topology.clos import Clos
from serried.topology.contention import Shares, class_loads, fair_rates, planned_bandwidth
from serried.topology.fitted import fitted_profile
from serried.topology.network import Wired, wire
from serried.topology.reduction import one_network
from serried.topology.spec import Floats, Indices
from serried.topology.traffic import PATTERNS, Phase, axis_flows, phases
from serried.topology.wires import ROUTINGS, Routes, label

__all__ = ["PLACEMENTS", "Simulated", "Way", "axis_rates", "place_jobs", "simulate"]

#: How jobs lie on the domains: side by side, dealt out in turn, or at random.
PLACEMENTS = ("packed", "scattered", "random")


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One algorithm and protocol: seconds for each payload, in the mean over draws, and a low and a high draw.

    slowdown: bandwidth of free wires over the one left, mean over draws, of the slowest job. bottlenecks: (link, share
    of its bandwidth in use).
    """

    algorithm: str
    protocol: str
    time_s: Floats
    low_s: Floats
    high_s: Floats
    slowdown: float
    bottlenecks: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulated:
    """Every way, fastest first by payload: best[i] indexes `ways` for payload i."""

    ranks: int
    endpoints: int
    payload_bytes: Floats
    ways: tuple[Way, ...]
    best: tuple[int, ...]
    stock: tuple[int, ...]

    @property
    def time_s(self) -> Floats:
        """Seconds of the best way for each payload."""
        return np.array([self.ways[way].time_s[row] for row, way in enumerate(self.best)])


def simulate(operation: str, payload_bytes: Floats, wired: Wired, *, routing: str = "ecmp", jobs: int = 1,
             placement: str = "packed", draws: int = 8, seed: int = 0, queue_pairs: int = 1,
             switch_adds: bool = True, most_flows: int = 2_000_000) -> Simulated:
    """Every algorithm for one collective of each of `jobs` equal jobs at once.

    payload_bytes: as `serried.fabric.collective_time_s` counts it. queue_pairs: into how many hashed parts every port
    cuts a flow. draws: of the hash, under "ecmp". Raises BadInput for what is unknown, NoAnswer where failures cut.
    """
    for field, value, known in (("--routing", routing, ROUTINGS), ("--placement", placement, PLACEMENTS),
                                ("operation", operation, tuple(ALGORITHMS))):
        if value not in known:
            raise BadInput(field=field, value=value, expected=f"one of {', '.join(known)}", remedy="Correct it.")
    chips_JDP = place_jobs(wired, jobs, placement, np.random.default_rng(seed))
    ranks = int(chips_JDP[0].size)
    fabric = one_network(wired)
    stock_profile = fabric.profile
    fabric = replace(fabric, profile=fitted_profile(stock_profile))
    group = place(np.array([float(ranks)]), np.ones(1), fabric)
    most_shifts = max(1, min(32, most_flows // max(ranks * jobs, 1)))
    patterns: dict[str, tuple[Floats, tuple[tuple[str, float], ...]]] = {}
    ways = []
    payload = np.asarray(payload_bytes, dtype=np.float64)
    for algorithm in ALGORITHMS[operation]:
        free = list(candidates(operation, payload, group, fabric, switch_adds=switch_adds, ways=[f"{algorithm}/"]))
        free = [way for way in free if np.isfinite(way.time_s).any()]
        if not free:
            continue
        pattern = PATTERNS[algorithm]
        if pattern not in patterns:
            patterns[pattern] = _slowdowns(wired, chips_JDP, pattern, routing, draws, seed, queue_pairs, most_shifts)
        slowdown_D, bottlenecks = patterns[pattern]
        for protocol in [way.protocol for way in free]:
            time_s_DG = np.stack([_time_s(operation, payload, fabric, ranks, f"{algorithm}/{protocol}", slowdown,
                                          switch_adds) for slowdown in slowdown_D])
            ways.append(Way(algorithm=algorithm, protocol=protocol, time_s=time_s_DG.mean(axis=0),
                            low_s=np.quantile(time_s_DG, 0.1, axis=0), high_s=np.quantile(time_s_DG, 0.9, axis=0),
                            slowdown=float(slowdown_D.mean()), bottlenecks=bottlenecks))
    if not ways:
        raise BadInput(field=f"collective profile {stock_profile.name}", value=operation,
                       expected="an algorithm that can run it", remedy="Name another profile in the topology.")
    had = [row for row, way in enumerate(ways) if f"ratio.{way.algorithm}.{way.protocol}" in stock_profile.parameters]
    return Simulated(ranks=ranks, endpoints=wired.chips, payload_bytes=payload, ways=tuple(ways),
                     best=_fastest(ways, range(len(ways)), payload), stock=_fastest(ways, had, payload))


def _fastest(ways: Sequence[Way], allowed: Sequence[int], payload: Floats) -> tuple[int, ...]:
    return tuple(min(allowed, key=lambda way: float(ways[way].time_s[row])) for row in range(len(payload)))


def _time_s(operation: str, payload: Floats, fabric: Fabric, ranks: int, way: str, slowdown: float,
            switch_adds: bool) -> Floats:
    """The formula on tiers of which contention has taken its part: of the one that joins all."""
    *inner, last = fabric.tiers
    slower = replace(fabric, tiers=(*inner, replace(last, bandwidth_bytes_per_s=last.bandwidth_bytes_per_s / slowdown)))
    group = place(np.array([float(ranks)]), np.ones(1), slower)
    return next(iter(candidates(operation, payload, group, slower, switch_adds=switch_adds, ways=[way]))).time_s


def place_jobs(wired: Wired, jobs: int, placement: str, rng: np.random.Generator) -> list[Indices]:
    """The chips of each job as [domain, place], in rank order; jobs are equal, what is left over stays idle."""
    domains = wired.chips // wired.node
    if not 1 <= jobs <= domains:
        raise BadInput(field="--jobs", value=jobs, expected=f"1 to {domains} jobs of whole scale-up domains",
                       remedy="Ask for fewer.")
    count = domains // jobs
    order = rng.permutation(domains) if placement == "random" else np.arange(domains)
    of_job = order[:count * jobs].reshape(count, jobs).T if placement == "scattered" else \
        order[:count * jobs].reshape(jobs, count)
    return [domain[:, None] * wired.node + np.arange(wired.node) for domain in of_job]


def _slowdowns(wired: Wired, chips_JDP: Sequence[Indices], pattern: str, routing: str, draws: int, seed: int,
               queue_pairs: int, most_shifts: int) -> tuple[Floats, tuple[tuple[str, float], ...]]:
    """Draws of how much slower the slowest job's network bytes move than on wires of its own."""
    found, healthy = [], _healthy(wired)
    bottlenecks: tuple[tuple[str, float], ...] = ()
    for draw in range(draws if routing == "ecmp" else 1):
        rng = np.random.default_rng((seed, draw))
        per_job = [list(phases(pattern, chips_DP, np.random.default_rng(seed), most_shifts=most_shifts))
                   for chips_DP in chips_JDP]
        taken_J = np.zeros(len(chips_JDP))
        for together in zip(*per_job, strict=True):
            shares, names = _contended(wired, together, routing, queue_pairs, rng)
            free_J = np.array([_free_rate(wired, phase) for phase in together]) if healthy is None else \
                _contended(healthy, together[:1], "spray", queue_pairs, rng)[0].rate_bytes_per_s_C[:1]
            taken_J = taken_J + together[0].weight * np.maximum(free_J / shares.rate_bytes_per_s_C, 0.0)
            bottlenecks = names
        found.append(float(taken_J.max()) if per_job[0] else 1.0)
    return np.array(found), bottlenecks


def _healthy(wired: Wired) -> Wired | None:
    """The same wires in order, where the tier's formula already knows their shape; None where it knows ports alone."""
    if wired.topology.kind in ("ring", "torus", "full", "cube-mesh"):
        return wire(replace(wired.topology, failed=())) if wired.topology.failed else wired
    return None


def _free_rate(wired: Wired, phase: Phase) -> float:
    """Rate of each flow if only the chips' own ports bound it."""
    sent = np.bincount(phase.source_F, weights=phase.load_F, minlength=wired.chips)
    got = np.bincount(phase.target_F, weights=phase.load_F, minlength=wired.chips)
    return one_network(wired).tiers[-1].bandwidth_bytes_per_s / float(max(sent.max(), got.max()))


def _contended(wired: Wired, together: Sequence[Phase], routing: str, queue_pairs: int,
               rng: np.random.Generator) -> tuple[Shares, tuple[tuple[str, float], ...]]:
    """Rates of the phases of several jobs at once, a class each."""
    source, target, load = (np.concatenate([getattr(phase, column) for phase in together])
                            for column in ("source_F", "target_F", "load_F"))
    class_F = np.repeat(np.arange(len(together)), [len(phase.source_F) for phase in together])
    return _shared(wired, source, target, load, class_F, len(together), routing, queue_pairs, rng)


def _shared(wired: Wired, source: Indices, target: Indices, load: Floats, class_F: Indices, class_count: int,
            routing: str, queue_pairs: int,
            rng: np.random.Generator) -> tuple[Shares, tuple[tuple[str, float], ...]]:
    """Flows cut into hashed parts, routed, and given their fair shares."""
    outer = (source // wired.node != target // wired.node) if wired.node > 1 else source != target
    source, target, load, class_F = source[outer], target[outer], load[outer], class_F[outer]
    network = wired.outer
    ports = network.uplinks_K[0] if isinstance(network, Clos) else 1
    parts = ports * queue_pairs if routing != "spray" else 1
    routes = network.route(np.repeat(source, parts), np.repeat(target, parts), routing, rng) if parts > 1 else \
        network.route(source, target, routing, rng)
    weighed = Routes(flow_N=routes.flow_N // parts, link_N=routes.link_N,
                     share_N=routes.share_N * load[routes.flow_N // parts] / parts)
    width = network.bandwidth_bytes_per_s_L
    class_N, link_N, load_N = class_loads(weighed, class_F, class_count, len(width))
    if routing == "planned":
        width = planned_bandwidth(width, network.cables_L, link_N, load_N * parts)
    shares = fair_rates(width, class_N, link_N, load_N, class_count)
    some = np.argpartition(shares.used_L, -min(5, len(width)))[-min(5, len(width)):]
    fullest = some[np.lexsort((some, -shares.used_L[some]))]
    return shares, tuple((label(network.blocks, int(link)), float(shares.used_L[link])) for link in fullest
                         if shares.used_L[link] > 0.0)


def axis_rates(wired: Wired, axes: Mapping[str, tuple[int, int, str]], *, routing: str = "ecmp", seed: int = 0,
               queue_pairs: int = 1) -> dict[str, tuple[float, float]]:
    """Axes of one job on the adapters at the same time: name -> (bytes/s of a chip alone, with the others).

    axes: name -> (degree, stride, "ring" or "direct"). An axis inside scale-up domains loads no adapter (inf).
    """
    flows = {name: axis_flows(wired.chips, *axis) for name, axis in axes.items()}

    def rates(names: list[str]) -> Floats:
        source, target = (np.concatenate([flows[name][side] for name in names]) for side in (0, 1))
        class_F = np.repeat(np.arange(len(names)), [len(flows[name][0]) for name in names])
        peers = np.array([1.0 if axes[name][2] == "ring" else max(axes[name][0] - 1.0, 1.0) for name in names])
        shares, _ = _shared(wired, source, target, 1.0 / peers[class_F], class_F, len(names), routing, queue_pairs,
                            np.random.default_rng(seed))
        return shares.rate_bytes_per_s_C

    together = rates(list(axes))
    return {name: (float(rates([name])[0]), float(together[row])) for row, name in enumerate(axes)}
