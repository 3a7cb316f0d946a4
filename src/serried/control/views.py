"""What people see of a job, a node, the fleet: read from the books and from what is seen now."""

from __future__ import annotations

from collections import Counter

import numpy as np

from serried.clock import SECOND_NS
from serried.control.books import Attempt, Story
from serried.control.launching import chips_of
from serried.control.reconciler import Reconciler
from serried.control.spec import JobPhase, JobView, NodeView, RankView, Usage
from serried.fleet import JobStatus, NodeFlag
from serried.fleet.spec import WHOLE_MILLI
from serried.runners import AttemptId

__all__ = ["attempt_of", "job_view", "node_view", "phase_of", "usage_of"]


def phase_of(reconciler: Reconciler, number: int) -> JobPhase:
    """Where a job stands, in people's words."""
    books = reconciler.books
    status, story = books.state.status_J[number], books.stories[number]
    if status == JobStatus.PENDING:
        return JobPhase.PENDING
    if status == JobStatus.DONE:
        return JobPhase.STOPPING if number in books.open_of else JobPhase(story.ending)
    if status == JobStatus.BROKEN:
        return JobPhase.MENDING
    attempt = books.attempts[story.epoch]
    if attempt.running_ns >= 0:
        return JobPhase.RUNNING
    return JobPhase.BACKING_OFF if attempt.not_before_ns > reconciler.now_ns else JobPhase.STARTING


def job_view(reconciler: Reconciler, number: int, *, ranks: bool = True) -> JobView:
    """One job. ranks: whether each rank is told of."""
    books = reconciler.books
    story, state = books.stories[number], books.state
    placement, spec = state.placements.get(number), story.spec
    attempt = books.attempts.get(story.epoch)
    return JobView(
        number=number, name=spec.name, tenant=books.fleet.tenants[state.jobs[number].tenant].name,
        priority=spec.priority, phase=phase_of(reconciler, number),
        chip_count=spec.workers * spec.chips_per_worker if placement is None else
        int(np.bitwise_count(placement.chips_R).sum()),
        submitted_s=story.submitted_ns / SECOND_NS, started_s=max(story.first_running_ns, 0) / SECOND_NS,
        ended_s=max(story.ended_ns, 0) / SECOND_NS, epoch=story.epoch, restarts=story.restarts,
        retries_left=max(spec.retries - story.failures, 0), evictions=state.evictions_J[number], outcome=story.outcome,
        ranks=_rank_views(reconciler, story, attempt) if ranks and attempt is not None else ())


def _rank_views(reconciler: Reconciler, story: Story, attempt: Attempt) -> tuple[RankView, ...]:
    fleet = reconciler.books.fleet
    found: list[RankView] = []
    chips_by_node = chips_of(attempt, fleet)
    seen = reconciler.sight.ranks(attempt.id, tuple(chips_by_node))
    for (node, chips), workers in zip(chips_by_node.items(), attempt.placement.workers_R.tolist(), strict=True):
        each = len(chips) // workers
        for place in range(workers):
            rank = len(found)
            one = seen.get(rank)
            found.append(RankView(
                rank=rank, node=node, chips=chips[place * each:(place + 1) * each], pid=one.pid if one else 0,
                exit_code=one.exit_code if one else None, step=one.beat.step if one and one.beat else -1,
                straggles=rank in story.stragglers))
    return tuple(found)


def node_view(reconciler: Reconciler, node: int) -> NodeView:
    """One node."""
    books = reconciler.books
    fleet, state = books.fleet, books.state
    name, flags = fleet.node_name(node), NodeFlag(int(state.columns.flags_N[node]))
    seen = reconciler.sight.nodes.get(name)
    words = [word for flag, word in ((NodeFlag.DOWN, "down"), (NodeFlag.DRAINING, "draining"),
                                     (NodeFlag.SPARE, "spare"), (NodeFlag.RESERVED, "reserved")) if flags & flag]
    if name in books.charter.absent:
        words = ["undeclared"]
    elif not words:
        words = ["up" if reconciler.sight.is_fresh(name) else "silent"]
    return NodeView(name=name, kind=fleet.kinds[int(fleet.kind_N[node])], chip_count=int(fleet.chip_count_N[node]),
                    idle_chips=int(state.columns.idle_chips_N[node]), state=words[0],
                    heard_s=seen.heard_ns / SECOND_NS if seen else 0.0,
                    incarnation=seen.incarnation if seen else "", jobs=tuple(state.jobs_on(node)))


def usage_of(reconciler: Reconciler) -> Usage:
    """The fleet at a glance."""
    books = reconciler.books
    fleet, columns = books.fleet, books.state.columns
    phases = Counter(books.endings)   # of those that are over, and then of the few that are not
    for number in {*books.open_of, *books.state.placements}:
        phase = phase_of(reconciler, number)
        phases[phase] += 1
        if phase == JobPhase.STOPPING and books.stories[number].ending:
            phases[books.stories[number].ending] -= 1
    pending = books.state.pending_count - sum(
        books.state.status_J[number] == JobStatus.PENDING for number in books.open_of)
    phases[JobPhase.PENDING] += pending
    here_N = ~np.isin(fleet.node_names, books.charter.absent)
    down_N = here_N & (columns.flags_N & int(NodeFlag.DOWN) != 0)
    held_T = books.state.usage.held_milli_TK.sum(axis=1) / WHOLE_MILLI
    return Usage(
        chip_count=int(fleet.chip_count_N[here_N].sum()), down_chips=int(fleet.chip_count_N[down_N].sum()),
        busy_chips=int((fleet.chip_count_N - columns.idle_chips_N).sum()),
        jobs_by_phase={str(phase): count for phase, count in phases.items() if count},
        chips_by_tenant={tenant.name: float(held) for tenant, held in zip(fleet.tenants, held_T, strict=True)},
        records=books.next_seq, policy=books.charter.policy, engine=reconciler.engine.name)


def attempt_of(reconciler: Reconciler, number: int, epoch: int | None) -> AttemptId:
    """An attempt of a job: the last one, or that of an epoch."""
    return AttemptId(number, reconciler.books.stories[number].epoch if epoch is None else epoch)
