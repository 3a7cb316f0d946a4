"""Requests on one deployment: how fast is it, does it fit, and which deployment is best?

In: a serving job (tokens in, tokens out, requests in flight), a machine, deployments as columns. Out: time to first
token, time per output token, tokens per second and memory per deployment, each by cause. Here the load is a closed
loop with a fixed number of requests in flight.
"""

from serried.serving.legality import LEGALITY, deployment_space
from serried.serving.machine import serving_machine, with_own_collectives
from serried.serving.search import ServingSearch, default_deployment, search_static
from serried.serving.spec import (
    SERVING_MEMORY_CAUSES,
    SERVING_TIME_CAUSES,
    Deployments,
    ServingEstimate,
    deployment,
)
from serried.serving.static import assemble, estimate_static
from serried.serving.tables import PhaseTimes, StaticTables, static_tables

__all__ = ["LEGALITY", "SERVING_MEMORY_CAUSES", "SERVING_TIME_CAUSES", "Deployments", "PhaseTimes", "ServingEstimate",
           "ServingSearch", "StaticTables", "assemble", "default_deployment", "deployment", "deployment_space",
           "estimate_static", "search_static", "serving_machine", "static_tables", "with_own_collectives"]
