"""Ask a policy until it has nothing more to say: the one loop in which plans are carried out, live and simulated."""

from __future__ import annotations

from collections.abc import Callable

from serried.fleet import Event, Policy, State

__all__ = ["decide"]


def decide(state: State, policy: Policy, now_ns: int, carry_out: Callable[[Event], object]) -> int:
    """Carry out plan after plan; returns when the policy wants to be asked again though nothing happen, -1 = never."""
    while (plan := policy.plan(state.snapshot(now_ns))).events:
        for event in plan.events:
            carry_out(event)
    return plan.wake_ns
