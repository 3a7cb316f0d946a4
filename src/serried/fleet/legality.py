"""What an event may do to the state as it stands: a table of laws, each with what was broken and what mends it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from serried.fleet.columns import DOWN, RESERVED, SPARE, bits_of, chip_bits
from serried.fleet.hands import exchanged, part_of
from serried.fleet.spec import (
    FAR_NS,
    WHOLE_MILLI,
    Alternative,
    Event,
    EventKind,
    JobStatus,
    Placement,
    Shape,
)

if TYPE_CHECKING:
    from serried.fleet.state import State

__all__ = ["LAWS", "Law", "plainly_legal", "refusal"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Law:
    """One law: the events it speaks of, whether it holds, what is said when it does not, and what mends it."""

    name: str
    kinds: frozenset[EventKind]
    holds: Callable[[State, Event], bool]
    broken: str
    remedy: str


_PLACING = frozenset({EventKind.PLACE, EventKind.REPLACE, EventKind.MOVE})
_OF_JOBS = frozenset({EventKind.FINISH, EventKind.CANCEL, EventKind.EVICT, EventKind.RESERVE}) | _PLACING
_OF_NODES = frozenset({EventKind.FAIL, EventKind.REPAIR, EventKind.DRAIN, EventKind.OPEN, EventKind.SPARE})
_STATUS = {EventKind.PLACE: {JobStatus.PENDING}, EventKind.REPLACE: {JobStatus.BROKEN, JobStatus.RUNNING},
           EventKind.MOVE: {JobStatus.RUNNING}, EventKind.EVICT: {JobStatus.RUNNING, JobStatus.BROKEN},
           EventKind.FINISH: {JobStatus.RUNNING}, EventKind.RESERVE: {JobStatus.PENDING},
           EventKind.CANCEL: {JobStatus.PENDING, JobStatus.RUNNING, JobStatus.BROKEN}}


def _in_time(state: State, event: Event) -> bool:
    return event.time_ns >= state.time_ns


def _job_known(state: State, event: Event) -> bool:
    return 0 <= event.job < len(state.jobs) and state.status_J[event.job] in _STATUS[event.kind]


def _requested(state: State, event: Event) -> bool:
    return event.request is not None and 0 <= event.request.tenant < len(state.fleet.tenants)


def _sensible(state: State, event: Event) -> bool:
    """A shape that the fleet's columns can speak of; whether it could ever be placed is another question."""
    assert event.request is not None, "requested came first"
    shape, level_count = event.request.shape, len(state.fleet.levels) + 1   # the fleet itself is the last level
    if id(shape) in state.sound_shapes:
        return event.request.runtime_ns >= 0
    if event.request.runtime_ns < 0 or not 1 <= shape.share_milli <= WHOLE_MILLI or not shape.alternatives:
        return False
    if not (-1 <= shape.level < level_count and -1 <= shape.spread_level < level_count) or (
            shape.level_required and shape.level < 0) or min(shape.cpu_milli, shape.memory_bytes) < 0:
        return False
    return all(one.worker_count >= 1 and 0 <= one.chips_per_worker <= 64 and one.kinds
               and all(0 <= kind < len(state.fleet.kinds) for kind in one.kinds)
               and (one.worker_count == 1 or one.chips_per_worker > 0)
               and (shape.share_milli == WHOLE_MILLI or (one.worker_count, one.chips_per_worker) == (1, 1))
               and one.worker_count % max(shape.island_workers, 1) == 0 and shape.island_workers >= 0
               and shape.spread_workers >= 0 for one in shape.alternatives)


def _nodes_known(state: State, event: Event) -> bool:
    return bool(event.nodes) and min(event.nodes) >= 0 and max(event.nodes) < state.fleet.node_count


def _reservable(state: State, event: Event) -> bool:
    """Every node at most for one job."""
    return (len(set(event.nodes)) == len(event.nodes)
            and all(0 <= node < state.fleet.node_count and state.reserver.get(node, event.job) == event.job
                    for node in event.nodes))


def _whole_gang(state: State, event: Event) -> bool:
    """All or nothing: every worker stands somewhere, with all its chips, on chips that the job accepts."""
    placement, shape = event.placement, state.jobs[event.job].shape
    if placement is None or not 0 <= placement.alternative < len(shape.alternatives):
        return False
    chosen = shape.alternatives[placement.alternative]
    node_R, workers_R = placement.node_R, placement.workers_R
    if not len(node_R) or node_R.min() < 0 or node_R.max() >= state.fleet.node_count or (
            np.count_nonzero(node_R[1:] <= node_R[:-1]) and not _all_differ(state, event.job, placement)):
        return False
    kind_R = state.fleet.kind_N[node_R]
    alike = not np.count_nonzero(kind_R != kind_R[0])
    return bool(workers_R.sum() == chosen.worker_count
                and not np.count_nonzero(np.bitwise_count(placement.chips_R) != workers_R * chosen.chips_per_worker)
                and set(kind_R[:1].tolist() if alike else kind_R.tolist()) <= set(chosen.kinds))


def _all_differ(state: State, number: int, placement: Placement) -> bool:
    """Whether no node comes twice. Of a gang that exchanges a few rows only these are looked at: the others differ."""
    held, node_R = state.placements.get(number), placement.node_R
    rows = None if held is None else exchanged(held, placement)
    if rows is None or 8 * len(rows) > len(node_R):
        return len(np.unique(node_R)) == len(node_R)
    fresh = node_R[rows].tolist()
    return len(set(fresh)) == len(fresh) and sum(np.count_nonzero(node_R == node) for node in fresh) == len(fresh)


def _fits(state: State, event: Event) -> bool:
    """What is taken is free: chips, shares, CPU and memory; what the job already holds counts as free to it."""
    placement, shape, columns = event.placement, state.jobs[event.job].shape, state.columns
    assert placement is not None, "whole_gang came first"
    held = state.placements.get(event.job)
    rows = None if held is None else exchanged(held, placement)
    if held is not None and rows is not None:   # what stays was free to it before
        held, placement = part_of(held, rows), part_of(placement, rows)
    node_R = placement.node_R
    free_RC = columns.free_milli_NC[node_R]
    if event.kind == EventKind.PLACE and not shape.cpu_milli and not shape.memory_bytes and not np.count_nonzero(
            placement.chips_R != (1 << free_RC.shape[1]) - 1):
        return not np.count_nonzero(free_RC < shape.share_milli)   # whole nodes
    held_RC = chip_bits(placement.chips_R, free_RC.shape[1])
    cpu_R, memory_R = columns.cpu_free_milli_N[node_R], columns.memory_free_bytes_N[node_R]
    workers_R = placement.workers_R.astype(np.int64)   # times bytes
    if held is not None:
        old_R, new_R = _on_both(held, placement)
        free_RC[new_R] += np.int16(shape.share_milli) * chip_bits(held.chips_R[old_R], free_RC.shape[1])
        own_R = held.workers_R[old_R].astype(np.int64)
        cpu_R[new_R] += own_R * shape.cpu_milli
        memory_R[new_R] += own_R * shape.memory_bytes
    return bool((placement.chips_R >> np.uint64(free_RC.shape[1]) == 0).all()
                and (free_RC[held_RC] >= shape.share_milli).all()
                and (cpu_R >= workers_R * shape.cpu_milli).all()
                and (memory_R >= workers_R * shape.memory_bytes).all())


def _on_both(old: Placement, new: Placement) -> tuple[list[int], list[int]]:
    """Rows of the one and of the other that stand on the same nodes."""
    row_of = {node: row for row, node in enumerate(old.node_R.tolist())}
    pairs = [(row_of[node], row) for row, node in enumerate(new.node_R.tolist()) if node in row_of]
    return [old_row for old_row, _ in pairs], [new_row for _, new_row in pairs]


def _takes_work(state: State, event: Event) -> bool:
    """New rows stand on nodes that take work; a replacement may use spares, and rows that stay may stay."""
    placement = event.placement
    assert placement is not None, "whole_gang came first"
    flags_R = state.columns.flags_N[placement.node_R]
    broken_R = state.columns.broken_chips_N[placement.node_R] & placement.chips_R
    if np.count_nonzero(flags_R & RESERVED):
        kept = state.reserver
        mine_R = [_may_use(state, event, node) if node in kept else False for node in placement.node_R.tolist()]
        flags_R = np.where(mine_R, flags_R & ~RESERVED, flags_R)
    if event.kind == EventKind.REPLACE:
        old = state.placements[event.job]
        rows = exchanged(old, placement)
        which = slice(None) if rows is None else rows   # the others stay where they are
        held, stays_R = set(old.node_R[which].tolist()), np.ones(len(placement.node_R), dtype=bool)
        stays_R[which] = [node in held for node in placement.node_R[which].tolist()]
        flags_R = np.where(stays_R, flags_R & DOWN, flags_R & ~SPARE)
    return not np.count_nonzero(flags_R) and not np.count_nonzero(broken_R)


def _may_use(state: State, event: Event, node: int) -> bool:
    """A node that is kept serves the job that it is kept for, and jobs that will be gone before that one starts."""
    assert event.placement is not None, "this law is about placements"
    owner = state.reserver[node]
    runtime_ns = state.jobs[event.job].runtime_on_ns(event.placement.alternative)
    until_ns = state.reservations[owner].until_ns
    return owner == event.job or (runtime_ns > 0 and event.time_ns + runtime_ns <= until_ns < FAR_NS)


LAWS: tuple[Law, ...] = (
    Law(name="time", kinds=frozenset(EventKind), holds=_in_time, broken="it lies before what has already happened",
        remedy="Apply events in the order of their time."),
    Law(name="request", kinds=frozenset({EventKind.SUBMIT}), holds=_requested,
        broken="it brings no job, or a tenant that is not known", remedy="Give the job and a tenant of the fleet."),
    Law(name="shape", kinds=frozenset({EventKind.SUBMIT}), holds=_sensible,
        broken="its shape names kinds or switch levels that the fleet does not have, or shares of more than one chip, "
               "or islands that do not divide the gang", remedy="Correct the shape."),
    Law(name="status", kinds=_OF_JOBS, holds=_job_known,
        broken="there is no such job, or it does not stand where this could happen to it",
        remedy="Take a new snapshot and plan again."),
    Law(name="nodes", kinds=_OF_NODES, holds=_nodes_known, broken="it names no node of this fleet",
        remedy="Name nodes by their numbers."),
    Law(name="reservation", kinds=frozenset({EventKind.RESERVE}), holds=_reservable,
        broken="it names no node of this fleet, or one that is kept for another job",
        remedy="Take a new snapshot and plan again."),
    Law(name="gang", kinds=_PLACING, holds=_whole_gang,
        broken="not every worker of the gang has all its chips, on chips that the job accepts, one row a node",
        remedy="Place all of the gang or none of it."),
    Law(name="capacity", kinds=_PLACING, holds=_fits, broken="what it takes is not free",
        remedy="Take a new snapshot and plan again."),
    Law(name="open", kinds=_PLACING, holds=_takes_work,
        broken="a node or chip that it takes is down, draining or spare", remedy="Take a new snapshot and plan again."),
)
_AT_A_GLANCE = frozenset({EventKind.PLACE})
_BY_KIND = {kind: tuple(law for law in LAWS if kind in law.kinds) for kind in EventKind}


def plainly_legal(state: State, event: Event) -> bool:
    """Whether a PLACE keeps every law, seen at a glance: it stands on one open node, or on whole, open nodes.

    Most gangs do, and the laws one by one take several times as long. It says false of much that is legal (the laws
    then decide), and never true of anything that is not.
    """
    placement = event.placement
    if placement is None or not _in_time(state, event) or not _job_known(state, event):
        return False
    shape = state.jobs[event.job].shape
    if not len(placement.node_R) or not 0 <= placement.alternative < len(shape.alternatives):
        return False
    plain = _plain_on_one if len(placement.node_R) == 1 else _plain_on_many
    return plain(state, placement, shape, shape.alternatives[placement.alternative])


def _plain_on_one(state: State, placement: Placement, shape: Shape, chosen: Alternative) -> bool:
    """In plain numbers: the node takes work, and what is taken of it is sound, free and all that was asked."""
    columns, node, chips = state.columns, placement.node_R.item(), placement.chips_R.item()
    if not 0 <= node < state.fleet.node_count or columns.flags_N.item(node) or (
            columns.broken_chips_N.item(node) & chips):
        return False
    free_C, workers = columns.free_milli_NC[node].tolist(), placement.workers_R.item()
    return (chips < 1 << len(free_C) and chips.bit_count() == chosen.chip_count and workers == chosen.worker_count
            and min([free_C[chip] for chip in bits_of(chips)], default=WHOLE_MILLI) >= shape.share_milli
            and columns.cpu_free_milli_N.item(node) >= workers * shape.cpu_milli
            and columns.memory_free_bytes_N.item(node) >= workers * shape.memory_bytes
            and state.fleet.kind_N.item(node) in chosen.kinds)


def _plain_on_many(state: State, placement: Placement, shape: Shape, chosen: Alternative) -> bool:
    """All of it stands on whole nodes, which are open, and asks for nothing but chips."""
    columns, node_R, widest = state.columns, placement.node_R, state.columns.free_milli_NC.shape[1]
    if shape.share_milli < WHOLE_MILLI or shape.cpu_milli or shape.memory_bytes or not chosen.chips_per_worker or (
            widest % chosen.chips_per_worker or len(node_R) * widest != chosen.chip_count):
        return False
    if node_R.item(0) < 0 or node_R.item(-1) >= state.fleet.node_count or np.count_nonzero(node_R[1:] <= node_R[:-1]):
        return False
    return not (np.count_nonzero(columns.open_chips_N[placement.nodes] != widest)
                or np.count_nonzero(placement.chips_R != (1 << widest) - 1)
                or np.count_nonzero(placement.workers_R != widest // chosen.chips_per_worker)
                or np.count_nonzero(state.fleet.kind_N[placement.nodes] != chosen.kinds[0]))


def refusal(state: State, event: Event) -> Law | None:
    """The first law that an event breaks, or None."""
    if event.kind in _AT_A_GLANCE and plainly_legal(state, event):
        return None
    for law in _BY_KIND[event.kind]:
        if not law.holds(state, event):
            return law
    return None
