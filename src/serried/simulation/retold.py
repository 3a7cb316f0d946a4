"""A run in which the world does what it is told: every event of it is given, and only the decisions are made here."""

from __future__ import annotations

from collections.abc import Sequence

from serried.clock import EventQueue
from serried.fleet import Event, Fleet, Policy, State
from serried.simulation.deciding import decide

__all__ = ["retold"]


def retold(fleet: Fleet, policy: Policy, world: Sequence[Event], asked_ns: Sequence[int], *,
           before: Sequence[Event] = ()) -> list[Event]:
    """The log of a fleet to which `world` happens, with a policy that is asked after every instant and at `asked_ns`.

    Time is virtual: the clock jumps from one instant to the next. world: in the order of time. before: what happened
    until then, decisions and all; nobody is asked about it, and it is not in the log that is returned.
    """
    state, queue = State(fleet), EventQueue[Event | None]()
    state.apply_all(before)
    for event in world:
        queue.push(event.time_ns, event)
    for time_ns in asked_ns:
        queue.push(time_ns, None)
    while len(queue):
        now_ns, what = queue.pop()
        if what is not None:
            state.apply(what)
        if queue.next_ns > now_ns:
            decide(state, policy, now_ns, state.apply)
    return state.log[len(before):]
