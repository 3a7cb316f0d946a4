"""Who asks, when, and for how much?

In: traces of public schemas, or arrival processes with lengths and a seed. Out: `Requests`, columns by arrival.
"""

from serried.traffic.arrivals import bursts, constant, diurnal, gamma, poisson
from serried.traffic.compose import (
    Client,
    closed_loop,
    cut,
    mix,
    open_loop,
    refuse_beyond,
    scaled,
    sessions,
    stream,
    taken,
    within,
)
from serried.traffic.spec import Requests
from serried.traffic.traces import read_trace, trace_names

__all__ = ["Client", "Requests", "bursts", "closed_loop", "constant", "cut", "diurnal", "gamma", "mix", "open_loop",
           "poisson", "read_trace", "refuse_beyond", "scaled", "sessions", "stream", "taken",
           "trace_names", "within"]
