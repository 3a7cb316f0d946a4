"""Who asks, when, and for how much?

In: traces of public schemas, or arrival processes with lengths and a seed. Out: `Requests`, columns by arrival.
"""

from serried.traffic.arrivals import bursts, constant, diurnal, gamma, poisson
from serried.traffic.chance import stream
from serried.traffic.clients import Client, mix, people, read_clients
from serried.traffic.compose import (
    closed_loop,
    cut,
    open_loop,
    refuse_beyond,
    repeated,
    scaled,
    sessions,
    taken,
    within,
)
from serried.traffic.spec import Requests
from serried.traffic.traces import read_trace, trace_names

__all__ = ["Client", "Requests", "bursts", "closed_loop", "constant", "cut", "diurnal", "gamma", "mix", "open_loop",
           "people", "poisson", "read_clients", "read_trace", "refuse_beyond", "repeated", "scaled", "sessions",
           "stream", "taken", "trace_names", "within"]
