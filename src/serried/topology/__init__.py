"""The wires themselves: who shares which link, and what does that do to a collective?

In: a topology file (a generator and its parameters, or nodes and links), routing, failures, jobs. Out: an explicit
graph, rates under contention, times of collectives with the links that bound them.
"""

from serried.topology.kinds import KINDS, build_topology
from serried.topology.network import explicit_graph, wire
from serried.topology.spec import Graph, Topology
from serried.topology.tables import read_topology, topology_toml

__all__ = ["KINDS", "Graph", "Topology", "build_topology", "explicit_graph", "read_topology", "topology_toml", "wire"]
