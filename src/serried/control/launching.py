"""From an attempt to the order that runs it, and whether its chips are free of processes by now.

Axes: R = row of a placement.
"""

from __future__ import annotations

from collections.abc import Iterable

from serried.clock import SECOND_NS
from serried.control.books import Attempt, Books, Story
from serried.fleet import Fleet
from serried.fleet.columns import bits_of
from serried.runners import Launch, Row

__all__ = ["chips_of", "launch_of", "occupied"]


def chips_of(attempt: Attempt, fleet: Fleet) -> dict[str, tuple[int, ...]]:
    """Node -> the numbers of the chips that an attempt has there, in the order of its rows."""
    placement = attempt.placement
    return {fleet.node_name(node): tuple(bits_of(chips))
            for node, chips in zip(placement.node_R.tolist(), placement.chips_R.tolist(), strict=True)}


def launch_of(attempt: Attempt, story: Story, books: Books, incarnations: dict[str, str]) -> Launch:
    """The order to run an attempt. incarnations: of the nodes, as they are seen now."""
    spec, rows, first_rank = story.spec, [], 0
    for (node, chips), workers in zip(chips_of(attempt, books.fleet).items(), attempt.placement.workers_R.tolist(),
                                      strict=True):
        rows.append(Row(node=node, incarnation=incarnations[node], chips=chips, first_rank=first_rank,
                        rank_count=workers))
        first_rank += workers
    return Launch(attempt=attempt.id, name=spec.name, argv=spec.argv, rows=tuple(rows), directory=spec.directory,
                  environment=spec.environment, limits=spec.limits, checkpoint_directory=spec.checkpoint_directory,
                  share_milli=books.state.jobs[attempt.id.job].shape.share_milli, restarts=attempt.restarts,
                  grace_ns=round(spec.grace_s * SECOND_NS))


def occupied(fleet: Fleet, attempts: Iterable[Attempt]) -> set[tuple[str, int]]:
    """(node, chip) of everything on which processes of these attempts may still be."""
    return {(node, chip) for attempt in attempts for node, chips in chips_of(attempt, fleet).items() for chip in chips}
