"""Which deployment is best: every legal one is evaluated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from serried.errors import NoAnswer
from serried.planner.spec import Machine
from serried.serving.legality import deployment_space
from serried.serving.memory import activation_bytes, cache_bytes_per_request, largest_batch, weight_bytes
from serried.serving.spec import Deployments, ServingEstimate
from serried.serving.static import assemble
from serried.serving.tables import static_tables
from serried.units import format_quantity
from serried.workload.spec import Serving

__all__ = ["ServingSearch", "default_deployment", "search_static"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingSearch:
    """The best deployments, best first, and how many were looked at. wall_s: left to the caller's clock."""

    deployments: Deployments
    estimate: ServingEstimate
    evaluated: int
    fitting: int


def search_static(job: Serving, machine: Machine, *, top: int = 10, weight_formats: Sequence[str] = ("bf16",),
                  cache_formats: Sequence[str] = ("bf16",), captured: Sequence[bool] | None = None) -> ServingSearch:
    """Every legal deployment on the whole machine, evaluated; the `top` by output tokens per second.

    captured: both ways by default where the stack can capture, else only eager. Raises NoAnswer, with what binds and
    the smallest fleet that would fit, when no deployment holds even one request.
    """
    choices: dict[str, Any] = {"weight_formats": weight_formats, "cache_formats": cache_formats,
                               "captured": launches(machine) if captured is None else captured}
    rows = deployment_space(job, machine, **choices)
    if not len(rows):
        rows = deployment_space(job, machine, use_all_chips=False, **choices)
    fits = np.flatnonzero(largest_batch(job, machine, rows) >= 1.0) if len(rows) else np.empty(0, dtype=np.intp)
    if not len(fits):
        raise _nothing_fits(job, machine, rows, choices)
    held = rows.take(fits)
    estimate = assemble(job, machine, held, static_tables(job, machine, held), machine.stack.parameters)
    order = np.lexsort((estimate.memory_bytes, -estimate.output_tokens_per_s))[:top]
    best = held.take(order)
    return ServingSearch(deployments=best, estimate=_taken(estimate, order), evaluated=len(rows), fitting=len(fits))


def launches(machine: Machine) -> tuple[bool, ...]:
    """How the stack launches decode steps: captured unless its facts say that it cannot."""
    return (bool(machine.stack.facts.get("captured", True)),)


def default_deployment(job: Serving, machine: Machine, *, weight_format: str = "bf16",
                       captured: bool = True) -> Deployments:
    """What people start with: the smallest power-of-two tensor degree that holds the load, copies on all other chips.

    A job that needs more than one scale-up domain takes tp = domain and as many stages as it needs. Raises NoAnswer
    when nothing of that kind fits.
    """
    rows = deployment_space(job, machine, weight_formats=(weight_format,), captured=(captured,))
    limit = largest_batch(job, machine, rows)
    domain = max(machine.fabric.node_size, 1)
    plain = (rows.attention_dp == 1) & ((rows.ep == 1) | (rows.ep == rows.tp)) & (rows.tp <= domain) \
        & ((rows.pp == 1) | (rows.tp == rows.tp[rows.tp <= domain].max(initial=1))) \
        & (rows.tp & (rows.tp - 1) == 0)
    enough = limit >= np.minimum(np.ceil(job.concurrency / rows.replicas), 8.0)
    found = np.flatnonzero(plain & enough)
    if not len(found):
        found = np.flatnonzero(plain & (limit >= 1.0))
    if not len(found):
        found = np.flatnonzero(limit >= 1.0)
    if not len(found):
        raise _nothing_fits(job, machine, rows, {"weight_formats": (weight_format,), "captured": (captured,)})
    first = found[np.lexsort((rows.ep[found], rows.pp[found], rows.chips_per_replica[found]))[0]]
    return rows.take(np.array([first]))


def _taken(estimate: ServingEstimate, order: Any) -> ServingEstimate:
    columns: dict[str, Any] = {name: getattr(estimate, name) for name in estimate.__slots__}
    taken: dict[str, Any] = {
        name: {cause: seconds[..., order] for cause, seconds in column.items()} if isinstance(column, dict)
        else column[..., order] for name, column in columns.items()}
    return ServingEstimate(**taken)


def _nothing_fits(job: Serving, machine: Machine, rows: Deployments, choices: dict[str, Any]) -> NoAnswer:
    if not len(rows):
        return NoAnswer(f"No deployment of {job.model.name} on {machine.chip_count} {machine.chip.name} is legal.",
                        binding="legality",
                        remedy="Choose a chip count that shares divisors with the model's attention heads.")
    weights = weight_bytes(job.model, rows)
    least = int(np.argmin(weights + cache_bytes_per_request(job, rows)))
    activations, cache = activation_bytes(job.model, rows)[least], cache_bytes_per_request(job, rows)[least]
    capacity = machine.chip.need("hbm_capacity")
    parts = {"weights": weights[least], "KV cache of one request": cache, "activations": activations}
    binding = max(parts, key=lambda name: parts[name])
    smallest = smallest_fleet(job, machine, choices)
    listed = ", ".join(f"{name} {format_quantity(float(value), 'bytes')}" for name, value in parts.items())
    return NoAnswer(
        f"No deployment of {job.model.name} fits {machine.chip_count} {machine.chip.name}: a chip would hold {listed}, "
        f"and has {format_quantity(capacity, 'bytes')}.", binding=binding,
        remedy=f"The smallest fleet that fits one request is {smallest} chips." if smallest
        else "No fleet of up to 4,096 such chips fits one request.")


def smallest_fleet(job: Serving, machine: Machine, choices: dict[str, Any]) -> int:
    """The smallest power-of-two fleet of the machine's chips that holds one request; 0 when none up to 4,096 does."""
    chips = 1
    while chips <= 4096:
        larger = replace(machine, chip_count=chips)
        rows = deployment_space(job, larger, **choices)
        if len(rows) and (largest_batch(job, larger, rows) >= 1.0).any():
            return chips
        chips *= 2
    return 0
