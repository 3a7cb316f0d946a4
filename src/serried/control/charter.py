"""What a ledger is about: which nodes, which tenants, which policy; and what a submission means there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from serried.clock import SECOND_NS
from serried.control.spec import JobSpec
from serried.errors import BadInput, nearest
from serried.fleet import Alternative, Fleet, Job, Shape, Tenant
from serried.fleet.assembly import fleet_of
from serried.fleet.policies import policy_named
from serried.fleet.scheduler import Scheduler
from serried.fleet.spec import WHOLE_MILLI
from serried.runners import Node

__all__ = ["Charter", "charter_fields", "charter_from", "job_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Charter:
    """The fleet that a control plane runs. nodes: in the order in which they joined, those that left as well (`absent`,
    by name): a node's number in the fleet follows from it. A later charter follows an earlier one (`amending`)."""

    nodes: tuple[Node, ...]
    tenants: tuple[Tenant, ...] = (Tenant(name="all"),)
    policy: str = "fair"
    seed: int = 0
    absent: tuple[str, ...] = ()

    def fleet(self) -> Fleet:
        """The nodes as columns, in the order of their switches. Raises BadInput for what is no fleet."""
        names = [node.name for node in self.nodes]
        if not names or len(set(names)) < len(names):
            raise BadInput(field="node.name", value=names[:8], expected="at least one node, each with its own name",
                           remedy="Name every node once.")
        levels = tuple(self.nodes[0].switches)
        for node in self.nodes:
            if tuple(node.switches) != levels:
                raise BadInput(field=f"node {node.name}: switches", value=dict(node.switches), expected=f"the levels "
                               f"{', '.join(levels) or '(none)'}, as on the first node", remedy="Name them alike.")
        kinds = tuple(dict.fromkeys(node.kind for node in self.nodes))
        return fleet_of(
            kinds=kinds, kind_N=[kinds.index(node.kind) for node in self.nodes],
            chip_count_N=[node.chip_count for node in self.nodes], cpu_milli_N=[node.cpu_milli for node in self.nodes],
            memory_bytes_N=[node.memory_bytes for node in self.nodes], node_names=names, tenants=self.tenants,
            switches={level: [node.switches[level] for node in self.nodes] for level in levels})

    def scheduler(self, fleet: Fleet) -> Scheduler:
        """The policy, with what it may remember still empty."""
        return policy_named(self.policy, fleet, (), seed=self.seed)


def charter_fields(charter: Charter) -> dict[str, Any]:
    """A charter as JSON knows it."""
    return asdict(charter)


def charter_from(fields: Mapping[str, Any]) -> Charter:
    """The charter that `charter_fields` wrote."""
    return Charter(
        nodes=tuple(Node(**{**node, "device_variables": tuple(node["device_variables"])}) for node in fields["nodes"]),
        tenants=tuple(Tenant(**{**one, "quota_chips_K": tuple(one["quota_chips_K"])}) for one in fields["tenants"]),
        policy=fields["policy"], seed=fields["seed"], absent=tuple(fields.get("absent", ())))


def job_of(spec: JobSpec, fleet: Fleet, shapes: dict[Shape, Shape]) -> Job:
    """What a submission asks of this fleet; equal shapes become one object (`shapes`).

    Raises BadInput, by field, for a tenant, a kind of chip or a level that the fleet does not have.
    """
    tenants = [tenant.name for tenant in fleet.tenants]
    kinds = tuple(_known("chips", kind, fleet.kinds) for kind in spec.chips) or tuple(range(len(fleet.kinds)))
    place = spec.topology
    _check_figures(spec)
    shape = Shape(
        alternatives=(Alternative(kinds=kinds, worker_count=spec.workers, chips_per_worker=spec.chips_per_worker),),
        share_milli=max(round(spec.share * WHOLE_MILLI), 1), cpu_milli=round(spec.cpu_cores * 1000),
        memory_bytes=spec.memory_bytes, level=_level("topology.level", place.level, fleet),
        level_required=place.required, island_workers=place.island_workers, spread_workers=place.spread_workers,
        spread_level=_level("topology.spread_level", place.spread_level, fleet))
    return Job(name=spec.name, shape=shapes.setdefault(shape, shape), priority=spec.priority,
               tenant=_known("tenant", spec.tenant, tenants) if spec.tenant else 0, preemptible=spec.preemptible,
               runtime_ns=round(spec.runtime_s * SECOND_NS))


#: Field of a submission -> the least and the most that the fleet's columns and its clock can hold.
_BOUNDS: dict[str, tuple[float, float]] = {
    "workers": (1, 32_000), "chips_per_worker": (0, 64), "share": (1e-3, 1), "cpu_cores": (0, 1e4),
    "memory_bytes": (0, 2**60), "priority": (-30_000, 30_000), "runtime_s": (0, 1e9), "retries": (0, 1e9),
    "backoff_s": (0, 1e9), "grace_s": (0, 1e6)}


def _check_figures(spec: JobSpec) -> None:
    for name, (least, most) in _BOUNDS.items():
        value = getattr(spec, name)
        if not least <= value <= most:
            raise BadInput(field=name, value=value, expected=f"{least:g} to {most:g}", remedy="Correct the figure.")


def _level(field: str, name: str, fleet: Fleet) -> int:
    return _known(field, name, (*fleet.levels, "fleet")) if name else -1


def _known(field: str, name: str, known: Sequence[str]) -> int:
    if name not in known:
        near = nearest(name, known, count=1)
        raise BadInput(field=field, value=name, expected=f"one of {', '.join(known)}",
                       remedy=f"Perhaps {near[0]!r} is meant." if near else "Choose one of these.")
    return known.index(name)
