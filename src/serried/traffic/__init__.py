"""Who asks, when, and for how much?

In: traces of public schemas, or arrival processes with lengths and a seed. Out: `Requests`, columns by arrival.
"""

from serried.traffic.spec import Requests

__all__ = ["Requests"]
