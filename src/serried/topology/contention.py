"""Max-min fair rates of classes of flows on shared links, by progressive filling.

A class is a set of flows that go at one rate: symmetric flows, or the flows of one collective, which wait for each
other. All rates rise together; when a link is full the classes on it stop, and the others go on (Bertsekas and
Gallager, Data Networks, 6.5.2). With a class for every flow this is the flow-level model.

Axes: C = class; L = link; N = (class, link) incidence.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from serried.topology.spec import Floats, Indices
from serried.topology.wires import Routes

__all__ = ["Shares", "class_loads", "fair_rates", "planned_bandwidth"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """rate_C: bytes/s of each flow of a class. bottleneck_C: the link that holds it, -1 where none does.

    used_L: share of each link's bandwidth that is taken.
    """

    rate_bytes_per_s_C: Floats
    bottleneck_C: Indices
    used_L: Floats


def class_loads(routes: Routes, class_F: Indices, class_count: int,
                link_count: int) -> tuple[Indices, Indices, Floats]:
    """(class, link, flows of the class on the link), from the routes of single flows."""
    key = class_F[routes.flow_N] * link_count + routes.link_N
    if class_count * link_count <= 50_000_000:
        load: Floats = np.bincount(key, weights=routes.share_N).astype(np.float64)
        found = np.flatnonzero(load).astype(np.int64)
        return found // link_count, found % link_count, load[found]
    found, position = np.unique(key, return_inverse=True)
    return found // link_count, found % link_count, np.bincount(position, weights=routes.share_N).astype(np.float64)


def fair_rates(bandwidth_bytes_per_s_L: Floats, class_N: Indices, link_N: Indices, load_N: Floats,
               class_count: int) -> Shares:
    """Rates at which no class can gain without taking from one that has no more.

    load_N: flows of the class on the link, fractions where they split. A class that loads no link is unbounded (inf).
    """
    links = len(bandwidth_bytes_per_s_L)
    rate_C, bottleneck_C = np.full(class_count, np.inf), np.full(class_count, -1, dtype=np.int64)
    if class_count == 1 and len(link_N):   # nobody else rises: the first full link holds the class
        bottleneck_C[0] = link_N[np.argmin(bandwidth_bytes_per_s_L[link_N] / load_N)]
        rate_C[0] = float(np.min(bandwidth_bytes_per_s_L[link_N] / load_N))
        used_L = np.zeros(links)
        used_L[link_N] = load_N * rate_C[0] / bandwidth_bytes_per_s_L[link_N]
        return Shares(rate_bytes_per_s_C=rate_C, bottleneck_C=bottleneck_C, used_L=used_L)
    left_L = bandwidth_bytes_per_s_L.astype(np.float64).copy()
    classes, wires, loads = class_N, link_N, load_N
    while len(classes):
        load_L = np.bincount(wires, weights=loads, minlength=links)
        level_L = np.full(links, np.inf)
        np.divide(np.maximum(left_L, 0.0), load_L, out=level_L, where=load_L > 0.0)
        level = float(level_L.min())
        held = level_L[wires] <= level * (1.0 + 1e-12)
        rate_C[classes[held]] = level
        bottleneck_C[classes[held]] = wires[held]
        stops = np.zeros(class_count, dtype=bool)
        stops[classes[held]] = True
        stopped = stops[classes]
        left_L -= level * np.bincount(wires[stopped], weights=loads[stopped], minlength=links)
        classes, wires, loads = classes[~stopped], wires[~stopped], loads[~stopped]
    taken_L = np.bincount(link_N, weights=load_N * rate_C[class_N], minlength=links)
    used_L = np.divide(taken_L, bandwidth_bytes_per_s_L, out=np.zeros(links), where=bandwidth_bytes_per_s_L > 0.0)
    return Shares(rate_bytes_per_s_C=rate_C, bottleneck_C=bottleneck_C, used_L=used_L)


def planned_bandwidth(bandwidth_bytes_per_s_L: Floats, cables_L: Floats, link_N: Indices, load_N: Floats) -> Floats:
    """What bundles carry when a planner gives every flow one cable and no cable more flows than it must.

    Whole flows can be laid so that a cable carries at most ceil(flows / cables): edge colouring of the flows between
    switches (Koenig 1916), level by level (Slepian and Duguid). The fullest cable sets the pace of all.
    """
    flows_L = np.bincount(link_N, weights=load_N, minlength=len(cables_L))
    mean_L = np.divide(flows_L, cables_L, out=np.zeros(len(cables_L)), where=cables_L > 0.0)
    full_L = np.ceil(mean_L - 1e-9)
    found: Floats = np.where((cables_L > 1.0) & (mean_L > 0.0), bandwidth_bytes_per_s_L * mean_L
                             / np.maximum(full_L, 1.0), bandwidth_bytes_per_s_L)
    return found
