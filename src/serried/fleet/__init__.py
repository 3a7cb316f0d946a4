"""The fleet: many jobs, many chips, failures. Who runs where, now?

In comes what there is (`Fleet`, as columns over nodes) and what happens (`Event`); out comes what to do (`Plan`), and
why a job waits (`Why`). The loop, the same under a real clock and under a simulated one:

    state = State(fleet)
    state.apply(event)                        # the world's: submit, finish, fail, repair, ...
    while (plan := policy.plan(state.snapshot(now))).events:   # one decision at a time, no side effects
        state.apply_all(plan.events)          # somebody else carries them out, and says so

`State` is a fold over its append-only log: `replay(fleet, log)` gives it back, byte for byte. A snapshot is a read-only
view of one version of the state, not a copy; it is good until the next event.
"""

from serried.fleet.snapshot import Snapshot
from serried.fleet.spec import (
    Alternative,
    Event,
    EventKind,
    Fleet,
    Job,
    JobStatus,
    NodeFlag,
    Placement,
    Plan,
    Policy,
    Shape,
    Tenant,
    Why,
)
from serried.fleet.state import State, replay

__all__ = ["Alternative", "Event", "EventKind", "Fleet", "Job", "JobStatus", "NodeFlag", "Placement", "Plan", "Policy",
           "Shape", "Snapshot", "State", "Tenant", "Why", "replay"]
