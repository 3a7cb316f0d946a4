"""Why a job waits: asked of the snapshot as it stands, by trying what the scheduler would try."""

from __future__ import annotations

from serried.fleet.columns import columns_of
from serried.fleet.gang import place_gang
from serried.fleet.making_room import budget_left_chips
from serried.fleet.placer import Placer, by_worth, stands_alone
from serried.fleet.rules import Rules
from serried.fleet.snapshot import Snapshot
from serried.fleet.spec import WHOLE_MILLI, Alternative, Fleet, JobStatus, Shape, Why
from serried.fleet.turns import barred, turns

__all__ = ["impossible", "why_it_waits"]


def why_it_waits(snapshot: Snapshot, placer: Placer, rules: Rules, number: int) -> Why:
    """The first reason that holds, from the hardest to the softest."""
    status, job = snapshot.status(number), snapshot.job(number)
    if status != JobStatus.PENDING:
        word = status.name.lower()
        return Why(job=number, reason=word, sentence=f"The job does not wait: it is {word}.")
    never = impossible(snapshot.fleet, placer, job.shape)
    if never:
        return Why(job=number, reason="impossible", sentence=never)
    forbidden = barred(snapshot, job)
    if len(forbidden) == len(job.shape.alternatives):
        return _quota(snapshot, number)
    if placer.place(snapshot, job.shape, forbidden) is not None:
        ahead = next(position for position, other in enumerate(turns(snapshot, rules)) if other == number)
        return Why(job=number, reason="turn", figures={"ahead": ahead},
                   sentence=f"There is room for it; {ahead} jobs have their turn before it.")
    way = next(way for way in by_worth(job.shape) if _possible(snapshot.fleet, placer, job.shape, way))
    return _no_room(snapshot, rules, number, job.shape.alternatives[way])


def _quota(snapshot: Snapshot, number: int) -> Why:
    job = snapshot.job(number)
    held = sum(int(milli) for milli in snapshot.usage.held_milli_TK[job.tenant]) / WHOLE_MILLI
    name = snapshot.fleet.tenants[job.tenant].name
    return Why(job=number, reason="quota", figures={"held_chips": held},
               sentence=f"Tenant {name} holds {held:g} chips; with this job it, or a tenant above it, would exceed a "
                        "quota beyond which it may not borrow.")


def _no_room(snapshot: Snapshot, rules: Rules, number: int, one: Alternative) -> Why:
    """Chips are short; or they are there, but not together; or not with CPU and memory; or they are kept."""
    columns, shape = snapshot.columns, snapshot.job(number).shape
    kinds = list(one.kinds)
    names = " or ".join(snapshot.fleet.kinds[kind] for kind in kinds)
    if shape.share_milli < WHOLE_MILLI:
        return Why(job=number, reason="shares", sentence=f"No open node has {shape.share_milli} thousandths of one "
                   f"{names} free together with its CPU and memory.")
    kind = max(kinds, key=lambda one_kind: int(columns.slots_KSG[-1][one_kind, 0, 0]))
    grain = max(one.chips_per_worker, 1) - 1
    chips = int(columns.slots_KSG[-1][kind, 0, 0])
    workers = int(columns.slots_KSG[-1][kind, 0, grain])
    figures = {"asked_chips": one.chip_count, "open_chips": chips, "asked_workers": one.worker_count,
               "open_workers": workers, "budget_left_chips": budget_left_chips(snapshot, rules)}
    if chips < one.chip_count:
        return Why(job=number, reason="chips", figures=figures,
                   sentence=f"It asks for {one.chip_count} {names}; {chips} are open now{_kept(snapshot, number)}.")
    if workers < one.worker_count:
        return Why(job=number, reason="fragmented nodes", figures=figures,
                   sentence=f"{chips} {names} are open, but only {workers} of the {one.worker_count} groups of "
                            f"{one.chips_per_worker} that it needs stand on one node each.")
    if shape.level_required and shape.level < len(columns.slots_KSG):
        most = int(columns.slots_KSG[shape.level][kind, :, grain].max())
        if most < one.worker_count:
            level = (*snapshot.fleet.levels, "fleet")[shape.level]
            return Why(job=number, reason="fragmented switches", figures={**figures, "most_under_one_switch": most},
                       sentence=f"{workers} of {one.worker_count} workers would find room, but under one {level} at "
                                f"most {most}, and the job must stay under one.")
    return Why(job=number, reason="host", figures=figures,
               sentence="Its chips are open, but not with the CPU and memory, islands or failure domains that it asks.")


def _kept(snapshot: Snapshot, number: int) -> str:
    """Nodes that are not open though they work, and why."""
    mine = len(snapshot.reserved_nodes.get(number, ()))
    others = sum(len(event.nodes) for event in snapshot.reservations.values()) - mine
    spare, draining = len(snapshot.spares), len(snapshot.draining)
    parts = [f"{count} nodes are {word}" for count, word in (
        (mine, "kept for it until all of them are free"), (others, "kept for other jobs"), (spare, "spares"),
        (draining, "draining")) if count]
    return f" ({', '.join(parts)})" if parts else ""


def impossible(fleet: Fleet, placer: Placer, shape: Shape) -> str:
    """Why the empty fleet, with every node up, could not host a job of this shape; "" when it could."""
    if any(_possible(fleet, placer, shape, way) for way in range(len(shape.alternatives))):
        return ""
    asked = " or ".join(f"{one.worker_count} x {one.chips_per_worker} of "
                        f"{'/'.join(fleet.kinds[kind] for kind in one.kinds)}" for one in shape.alternatives)
    under = f" under one {(*fleet.levels, 'fleet')[shape.level]}" if shape.level_required else ""
    return f"Not even the empty fleet could host it: it asks for {asked}{under}."


def _possible(fleet: Fleet, placer: Placer, shape: Shape, way: int) -> bool:
    """Whether the empty fleet could host this alternative."""
    one = shape.alternatives[way]
    if not stands_alone(shape, way):
        return place_gang(fleet, placer.switches, columns_of(fleet), shape, way) is not None
    fits_N = (fleet.chip_count_N >= one.chips_per_worker) & (fleet.cpu_milli_N >= shape.cpu_milli) & (
        fleet.memory_bytes_N >= shape.memory_bytes)
    return any(bool((fits_N & (fleet.kind_N == kind)).any()) for kind in one.kinds)
