"""Read a scenario file (`serried/fleet-scenario/1`); its fields are described in `scenario_fields`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from serried.catalogue.entry import read_toml
from serried.clock import nanoseconds
from serried.economics import chip_usd_per_s
from serried.errors import BadInput, NoAnswer, nearest
from serried.fleet import Alternative, Fleet, Shape, Tenant
from serried.fleet.arrival_replay import MEASURES
from serried.fleet.assembly import fleet_of
from serried.fleet.rules import Rules, rules_named
from serried.fleet.weighing import Way, Weigher
from serried.silicon import Chip, read_chip
from serried.simulation.failures import COMPONENTS
from serried.simulation.reliability import read_faults
from serried.simulation.scenario_fields import (
    FAILURES,
    FAULT,
    JOBS,
    POOL,
    SCHEDULER,
    SERVICE,
    TENANT,
    TOP,
    TRACE,
    read_fields,
)
from serried.simulation.spec import Checkpoint, Effect, Fault, Ints, JobClass, Scenario, Service, Submissions
from serried.simulation.traces import read_trace
from serried.simulation.workloads import pool_of, workload_of

__all__ = ["LEVELS", "SCHEMA", "read_scenario"]

SCHEMA = "serried/fleet-scenario/1"
LEVELS = ("leaf", "spine")


def read_scenario(path: str | Path, *, policy: str | None = None, weigher: Weigher | None = None) -> Scenario:
    """The scenario of a file; `policy` stands in for the file's own. weigher: one that has planned some jobs already.

    Raises BadInput with the file and the field for anything that does not make sense.
    """
    file = str(path)
    top = read_fields(read_toml(Path(path)), TOP, "", file)
    if top["schema"] != SCHEMA:
        raise BadInput(file=file, field="schema", value=top["schema"], expected=repr(SCHEMA),
                       remedy=f'Begin the file with schema = "{SCHEMA}".')
    scheduler = read_fields(top["scheduler"], SCHEDULER, "scheduler", file)
    pools = _tables(top, "pool", POOL, file)
    chips = [read_chip(pool["chip"]) for pool in pools]
    names = [pool["name"] or chip.name for pool, chip in zip(pools, chips, strict=True)]
    _distinct(names, "pool", file)
    fleet = _fleet(pools, names, _tenants(_tables(top, "tenant", TENANT, file), names, file),
                   nanoseconds(scheduler["usage_half_life"]), file)
    reader = _Reader(file, fleet, pools, chips, weigher or Weigher())
    if scheduler["placement"] not in MEASURES:
        raise _unknown(scheduler["placement"], "scheduler.placement", MEASURES, file)
    classes = tuple(reader.jobs(table, f"jobs[{place}]")
                    for place, table in enumerate(_tables(top, "jobs", JOBS, file)))
    services = tuple(reader.service(table, f"service[{place}]")
                     for place, table in enumerate(_tables(top, "service", SERVICE, file)))
    _distinct([*(one.name for one in classes), *(one.name for one in services)], "jobs and service", file)
    return Scenario(name=top["name"], fleet=fleet, chips_K=tuple(chips), rules=_rules(scheduler, policy),
                    price_usd_K=tuple(pool["price"] for pool in pools),
                    faults=_faults(top, file), classes=classes, services=services,
                    trace=reader.trace(top["trace"]) if top["trace"] else None,
                    decide_every_ns=nanoseconds(scheduler["decide_every"]), measure=scheduler["placement"],
                    policy=policy or scheduler["policy"], file=file)


def _tables(top: Mapping[str, Any], name: str, fields: Any, file: str) -> list[dict[str, Any]]:
    return [read_fields(table, fields, f"{name}[{place}]", file) for place, table in enumerate(top[name])]


def _unknown(name: str, where: str, known: Any, file: str) -> BadInput:
    near = nearest(name, known, count=3)
    return BadInput(file=file, field=where, value=name, expected=f"one of {', '.join(list(known)[:20])}",
                    remedy=f"Nearest: {', '.join(near)}." if near else "Correct the name.")


def _distinct(names: Sequence[str], where: str, file: str) -> None:
    for name in names:
        if names.count(name) > 1:
            raise BadInput(file=file, field=f"{where} name", value=name, expected="names that differ",
                           remedy="Give each its own name.")


def _rules(scheduler: Mapping[str, Any], policy: str | None) -> Rules:
    changes = {"spare_ratio": scheduler["spare_ratio"], "depth": scheduler["depth"],
               "patience_ns": None if scheduler["patience"] is None else nanoseconds(scheduler["patience"]),
               "reservations": scheduler["reservations"], "budget_chips": scheduler["preemption_budget"]}
    rules = rules_named(policy or scheduler["policy"])
    if policy is not None:   # what is compared is the policy; spares, patience and depth are the fleet's
        changes |= {"reservations": None, "budget_chips": None}
    return replace(rules, **{name: value for name, value in changes.items() if value is not None})


def _tenants(tables: Sequence[Mapping[str, Any]], pools: Sequence[str], file: str) -> tuple[Tenant, ...]:
    if not tables:
        return (Tenant(name="all"),)
    names = [table["name"] for table in tables]
    _distinct(names, "tenant", file)
    found = []
    for place, table in enumerate(tables):
        if table["parent"] and table["parent"] not in names:
            raise _unknown(table["parent"], f"tenant[{place}].parent", names, file)
        for pool in table["quota"]:
            if pool not in pools:
                raise _unknown(pool, f"tenant[{place}].quota", pools, file)
        found.append(Tenant(
            name=table["name"], weight=table["weight"], borrows=table["borrows"],
            parent=names.index(table["parent"]) if table["parent"] else -1,
            quota_chips_K=tuple(int(table["quota"].get(pool, 0)) for pool in pools) if table["quota"] else ()))
    return tuple(found)


def _fleet(pools: Sequence[Mapping[str, Any]], names: Sequence[str], tenants: tuple[Tenant, ...], half_life_ns: int,
           file: str) -> Fleet:
    """Nodes of every pool side by side; no switch spans two pools."""
    kinds: list[Ints] = []
    chips: list[Ints] = []
    leaves: list[Ints] = []
    spines: list[Ints] = []
    for kind, pool in enumerate(pools):
        width, count = int(pool["node_chips"]), int(pool["count"])
        if count % width:
            raise BadInput(file=file, field=f"pool[{kind}].count", value=count,
                           expected=f"whole nodes of {width} chips",
                           remedy=f"Take {count // width * width} or {-(-count // width) * width}.")
        if pool["spine_nodes"] % pool["leaf_nodes"]:
            raise BadInput(file=file, field=f"pool[{kind}].spine_nodes", value=pool["spine_nodes"],
                           expected="whole leaf switches under each spine switch",
                           remedy="Take a multiple of leaf_nodes.")
        node = np.arange(count // width)
        kinds.append(np.full(len(node), kind))
        chips.append(np.full(len(node), width))
        leaves.append(node // int(pool["leaf_nodes"]) + (leaves[-1][-1] + 1 if leaves else 0))
        spines.append(node // int(pool["spine_nodes"]) + (spines[-1][-1] + 1 if spines else 0))
    return fleet_of(kinds=names, kind_N=np.concatenate(kinds), chip_count_N=np.concatenate(chips),
                    switches={"leaf": np.concatenate(leaves).tolist(), "spine": np.concatenate(spines).tolist()},
                    tenants=tenants, usage_half_life_ns=half_life_ns, file=file)


def _faults(top: Mapping[str, Any], file: str) -> tuple[Fault, ...]:
    faults: dict[str, Fault] = {}
    if top["failures"]:
        table = read_fields(top["failures"], FAILURES, "failures", file)
        faults = {fault.name: fault for fault in read_faults(table["rates"], scale=table["scale"])}
    for place, table in enumerate(_tables(top, "fault", FAULT, file)):
        if table["effect"] not in ("down", "slow"):
            raise _unknown(table["effect"], f"fault[{place}].effect", ("down", "slow"), file)
        faults[table["name"]] = Fault(
            name=table["name"], component=table["component"], rate_per_s=table["rate"],
            detection_ns=nanoseconds(table["detection"]), repair_median_ns=nanoseconds(table["repair"]),
            repair_spread=table["repair_spread"], effect=cast(Effect, table["effect"]), pace=table["pace"],
            source=file)
    for fault in faults.values():
        if fault.component not in (*COMPONENTS, *LEVELS):
            raise _unknown(fault.component, f"fault {fault.name}: component", (*COMPONENTS, *LEVELS), file)
        if fault.effect == "slow" and fault.component in LEVELS:
            raise BadInput(file=file, field=f"fault {fault.name}: component", value=fault.component,
                           expected="chip, link or node for what is slow", remedy="Switches are up or down here.")
    return tuple(faults.values())


class _Reader:
    """Reads what names pools, tenants and switch levels."""

    def __init__(self, file: str, fleet: Fleet, pools: Sequence[Mapping[str, Any]], chips: Sequence[Chip],
                 weigher: Weigher) -> None:
        self._weigher = weigher
        self._file, self._fleet, self._pools, self._chips = file, fleet, pools, chips
        self._throughput_K = [self._pool_throughput(place) for place in range(len(pools))]
        self._usd_per_s_K = [float(chip_usd_per_s(1.0, chip=chip, price_usd=pool["price"]))
                             for chip, pool in zip(chips, pools, strict=True)]

    def _pool_throughput(self, place: int) -> float:
        given = self._pools[place]["throughput"]
        if given is not None:
            return float(given)
        peak = self._chips[place].get("matrix_peak.bf16")
        if peak is None:
            raise BadInput(file=self._file, field=f"pool[{place}].throughput", value=None,
                           expected="work of one chip, relative to other pools",
                           remedy=f"{self._chips[place].name} publishes no bf16 peak: give it.")
        return float(peak) / 1e15

    def shape(self, table: Mapping[str, Any], sizes: Sequence[float], place: int, where: str, *,
              share_milli: int = 1000) -> Shape:
        """A gang of the size at `place` on any of the pools that a table names, whole nodes beyond one node."""
        if table["level"] and table["level"] not in LEVELS:
            raise _unknown(table["level"], f"{where}.level", LEVELS, self._file)
        kinds, ways = list(self._fleet.kinds), []
        pools, chips_on = table["pools"] or dict.fromkeys(kinds, 1.0), table.get("chips_on", {})
        for name in [*pools, *chips_on]:
            if name not in (kinds if name in pools else pools):
                raise _unknown(name, f"{where}.{'pools' if name in pools else 'chips_on'}", kinds, self._file)
        for pool, ratio in pools.items():
            kind, of_pool = kinds.index(pool), chips_on.get(pool, sizes)
            if len(of_pool) != len(sizes):
                raise BadInput(file=self._file, field=f"{where}.chips_on.{pool}", value=of_pool,
                               expected=f"a size for each of the {len(sizes)}", remedy="Give as many.")
            if of_pool[place] <= self._pools[kind]["count"]:
                ways.append((kind, self._whole_nodes(int(of_pool[place]), kind, where), ratio))
        if not ways:
            raise BadInput(file=self._file, field=f"{where}.chips", value=int(sizes[place]),
                           expected="no more chips than the largest of its pools has",
                           remedy="Ask for fewer, or name other pools.")
        self._check_level(table, ways, where)
        return Shape(alternatives=self._alternatives(table, ways, where), share_milli=share_milli,
                     level_required=table["level_required"],
                     level=LEVELS.index(table["level"]) if table["level"] else -1)

    def _whole_nodes(self, chips: int, kind: int, where: str) -> int:
        width = int(self._pools[kind]["node_chips"])
        if chips > width and chips % width:
            raise BadInput(file=self._file, field=f"{where}.chips", value=chips,
                           expected=f"whole nodes of {width} chips beyond one node of {self._fleet.kinds[kind]}",
                           remedy=f"Take {chips // width * width} or {-(-chips // width) * width}.")
        return chips

    def _alternatives(self, table: Mapping[str, Any], ways: Sequence[tuple[int, int, float]],
                      where: str) -> tuple[Alternative, ...]:
        """Each (kind, chips, ratio) with throughput and price: the planner's for a model, else those of the pool."""
        job = workload_of(table, where, self._file) if "model" in table else None
        if job is None:
            return tuple(Alternative(
                kinds=(kind,), worker_count=max(chips // int(self._pools[kind]["node_chips"]), 1),
                chips_per_worker=min(chips, int(self._pools[kind]["node_chips"])),
                throughput_per_s=chips * self._throughput_K[kind] * max(ratio, 1e-9),
                price_usd_per_s=chips * self._usd_per_s_K[kind] if np.isfinite(self._usd_per_s_K).all() else 0.0)
                for kind, chips, ratio in ways)
        gangs = [Way(kind=kind, node_chips=int(self._pools[kind]["node_chips"]), ratio=max(ratio, 1e-9),
                     price_usd=self._pools[kind]["price"],
                     pool=pool_of(self._chips[kind], self._pools[kind]["fabric"], chips, f"pool[{kind}]", self._file))
                 for kind, chips, ratio in ways]
        try:
            return self._weigher.alternatives(job, gangs)
        except NoAnswer as error:
            raise BadInput(file=self._file, field=f"{where}.model", value=table["model"],
                           expected="a model that runs on one of its pools",
                           remedy=f"{error.remedy} {error.binding}") from None

    def _check_level(self, table: Mapping[str, Any], ways: Sequence[tuple[int, int, float]], where: str) -> None:
        """A gang that must stay under a switch has to fit under one."""
        if not table["level_required"] or not table["level"]:
            return
        room = {kind: int(self._pools[kind][f"{table['level']}_nodes"]) * int(self._pools[kind]["node_chips"])
                for kind, _, _ in ways}
        if all(chips > room[kind] for kind, chips, _ in ways):
            raise BadInput(file=self._file, field=f"{where}.chips", value=ways[0][1],
                           expected=f"at most the {max(room.values())} chips under one {table['level']} switch",
                           remedy="Ask for fewer, for a wider level, or let level_required be false.")

    def _tenant(self, name: str, where: str) -> int:
        names = [tenant.name for tenant in self._fleet.tenants]
        if name not in names:
            raise _unknown(name, where, names, self._file)
        return names.index(name)

    def jobs(self, table: Mapping[str, Any], where: str) -> JobClass:
        """One class of jobs."""
        weights = table["weights"] or [1.0] * len(table["chips"])
        if len(weights) != len(table["chips"]) or not sum(weights) > 0:
            raise BadInput(file=self._file, field=f"{where}.weights", value=weights,
                           expected="a weight for each of chips, not all zero", remedy="Give as many.")
        tenants = table["tenants"] or {tenant.name: 1.0 for tenant in self._leaves()}
        if not sum(tenants.values()) > 0:
            raise BadInput(file=self._file, field=f"{where}.tenants", value=tenants, expected="weights above 0",
                           remedy="Give at least one tenant a weight.")
        return JobClass(
            name=table["name"], arrivals_per_s=table["per_day"] / 86400.0,
            weights_Z=tuple(weights),
            shapes_Z=tuple(self.shape(table, table["chips"], place, where) for place in range(len(table["chips"]))),
            median_ns=nanoseconds(table["median"]), spread=table["spread"], longest_ns=nanoseconds(table["longest"]),
            tenants=tuple((self._tenant(name, f"{where}.tenants"), weight) for name, weight in tenants.items()),
            checkpoint=_checkpoint(table), priority=table["priority"], preemptible=table["preemptible"],
            daily_swing=table["daily_swing"], estimate_ratio=table["estimate_ratio"],
            backlog=int(table["backlog"]))

    def _leaves(self) -> list[Tenant]:
        parents = {tenant.parent for tenant in self._fleet.tenants}
        return [tenant for number, tenant in enumerate(self._fleet.tenants) if number not in parents]

    def service(self, table: Mapping[str, Any], where: str) -> Service:
        """One service."""
        if table["peak"] < table["base"]:
            raise BadInput(file=self._file, field=f"{where}.peak", value=table["peak"],
                           expected=f"at least the base of {table['base']:g}", remedy="Exchange the two.")
        return Service(
            name=table["name"], shape=self.shape(table, [table["replica_chips"]], 0, where),
            tenant=self._tenant(table["tenant"] or self._leaves()[0].name, f"{where}.tenant"), base_load=table["base"],
            peak_load=table["peak"], peak_hour=table["peak_hour"], noise=table["noise"],
            target_ratio=table["busy_ratio"], least_replicas=table["least"],
            scaling_ns=nanoseconds(table["scale_every"]), start_ns=nanoseconds(table["start"]),
            priority=table["priority"])

    def trace(self, raw: Mapping[str, Any]) -> Submissions:
        """Jobs of a recorded trace."""
        table = read_fields(raw, TRACE, "trace", self._file)
        path = Path(self._file).parent / table["file"]
        return read_trace(path, table["format"], fleet=self._fleet, checkpoint=_checkpoint(table),
                          shape_of=lambda chips, share_milli: self.shape(table, [chips], 0, "trace",
                                                                         share_milli=share_milli))


def _checkpoint(table: Mapping[str, Any]) -> Checkpoint:
    return Checkpoint(interval_ns=nanoseconds(table["checkpoint_every"]), write_ns=nanoseconds(
        table["checkpoint_write"]), restart_ns=nanoseconds(table["restart"]))
