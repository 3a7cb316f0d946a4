"""A schedule fitted to 64 chips: the cut bound, and the packing, chunking and timing that come near it."""

from __future__ import annotations

import time

from benchmarks import Row
from serried.topology import build_topology, explicit_graph
from serried.weave import Wires, check, synthesise
from serried.weave.bound import all_reduce_bound
from serried.weave.wires import wires

#: Kind and parameters; the first two look the same from every chip.
FABRICS = (("switch", {"chips": 64}), ("torus", {"x": 8, "y": 8}), ("rail", {"chips": 64, "leaf": 64}))
BOUND_BAR_S, SCHEDULE_BAR_S, GAP_BAR = 2.0, 10.0, 0.01
PAYLOAD_BYTES = 2.0**30


def graph_of(kind: str, parameters: dict[str, object]) -> Wires:
    """The wires of a generated fabric."""
    graph = explicit_graph(build_topology(f"{kind} of 64", kind, parameters))
    links = zip(graph.source_L.tolist(), graph.target_L.tolist(), graph.bandwidth_bytes_per_s_L.tolist(),
                graph.latency_s_L.tolist(), strict=True)
    return wires(graph.name, graph.node_names, graph.endpoint_count, list(links))


def run() -> list[Row]:
    """Time of the process, which is what a machine of its own would show (one thread), and the wall's beside it."""
    rows = []
    for kind, parameters in FABRICS:
        graph = graph_of(kind, parameters)
        began_s = time.process_time()
        all_reduce_bound(graph)
        bound_s = time.process_time() - began_s
        began_s, began_cpu_s = time.perf_counter(), time.process_time()
        made = synthesise("all_reduce", graph, PAYLOAD_BYTES)
        check(made.schedule)
        wall_s, cpu_s = time.perf_counter() - began_s, time.process_time() - began_cpu_s
        gap = made.packed_s / made.bound_s - 1
        rows += [Row(name=f"{graph.name}: bound", value=bound_s, unit="s", bar=f"<= {BOUND_BAR_S:g} s",
                     met=bound_s <= BOUND_BAR_S),
                 Row(name=f"{graph.name}: schedule, proven", value=cpu_s, unit="s", bar=f"<= {SCHEDULE_BAR_S:g} s",
                     met=cpu_s <= SCHEDULE_BAR_S),
                 Row(name="  on the wall", value=wall_s, unit="s"),
                 Row(name="  trees on the fullest wire over the bound", value=gap, unit="1", bar=f"<= {GAP_BAR:g}",
                     met=gap <= GAP_BAR),
                 Row(name="  predicted, with latency and pipelining", value=made.time_s / made.bound_s, unit="1")]
    return rows
