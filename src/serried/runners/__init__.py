"""How does an order become processes, and how is it known what became of them?

In comes a `Launch` (an attempt to run a gang: which ranks on which chips of which nodes), out comes an `Observation`
(which nodes live, which ranks run, how they ended). `local` runs gangs on this machine under one agent process a node;
`slurm` has a Slurm cluster do it. Both keep the promises of `spec.Engine`, so that whoever drives them needs to know
neither.
"""

from serried.runners.spec import (
    AttemptId,
    Beat,
    Engine,
    Launch,
    Limits,
    Node,
    NodeSeen,
    Observation,
    Phase,
    RankSeen,
    Row,
    TaskSeen,
)

__all__ = ["AttemptId", "Beat", "Engine", "Launch", "Limits", "Node", "NodeSeen", "Observation", "Phase", "RankSeen",
           "Row", "TaskSeen"]
