"""What a job is worth on each kind of chip: throughput and price predicted by the planner, as alternatives of a shape.

The scheduler only sees the numbers; here they are made, once per job form, from the same models that `plan` uses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from serried.economics import DEFAULT_TARIFF, Tariff, chip_usd_per_s
from serried.errors import NoAnswer
from serried.fabric import Pool
from serried.fleet.spec import Alternative
from serried.planner import machine_of, search_training
from serried.serving import search_static, serving_machine
from serried.workload import Serving, Training

__all__ = ["Way", "Weigher"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Way:
    """A gang that a job may run as: `pool.chip_count` chips of a kind of the fleet, in nodes of so many.

    price_usd: of one chip, where it is not the chip's own figure. ratio: of what is predicted there, for a user who
    knows better.
    """

    kind: int
    pool: Pool
    node_chips: int
    price_usd: float | None = None
    ratio: float = 1.0


class Weigher:
    """Plans each distinct job on each distinct gang once, and remembers what came of it."""

    def __init__(self, tariff: Tariff = DEFAULT_TARIFF) -> None:
        self._tariff = tariff
        self._known: dict[tuple[Training | Serving, str, str, int], float | NoAnswer] = {}

    @property
    def planned(self) -> int:
        """How many searches were made."""
        return len(self._known)

    def alternatives(self, job: Training | Serving, ways: Sequence[Way]) -> tuple[Alternative, ...]:
        """One alternative for every way on which the job runs at all, with its best layout's tokens per second.

        A worker is a node, or all of a smaller gang. Prices are compared only when all are known: else throughput alone
        decides. Raises NoAnswer when the job runs on none, saying why of each.
        """
        found, refused = [], []
        for way in ways:
            tokens_per_s = self._tokens_per_s(job, way.pool)
            if isinstance(tokens_per_s, NoAnswer):
                refused.append(f"{way.pool.chip_count} x {way.pool.chip.name}: {tokens_per_s}")
                continue
            count, usd_per_s = way.pool.chip_count, chip_usd_per_s(1.0, chip=way.pool.chip, price_usd=way.price_usd,
                                                                   tariff=self._tariff)
            found.append(Alternative(
                kinds=(way.kind,), worker_count=max(count // way.node_chips, 1),
                chips_per_worker=min(count, way.node_chips), throughput_per_s=tokens_per_s * way.ratio,
                price_usd_per_s=float(usd_per_s) * count))
        if not found:
            raise NoAnswer("The job runs on none of these chips.", binding=" ".join(refused),
                           remedy="Ask for more chips, or name other kinds.")
        if not all(np.isfinite(one.price_usd_per_s) for one in found):
            found = [replace(one, price_usd_per_s=0.0) for one in found]
        return tuple(found)

    def _tokens_per_s(self, job: Training | Serving, pool: Pool) -> float | NoAnswer:
        """Of the best layout: trained tokens, or tokens put out; or why there is none."""
        key = job, pool.chip.file or pool.chip.name, pool.fabric.name, pool.chip_count
        if key not in self._known:
            try:
                self._known[key] = _planned_tokens_per_s(job, pool)
            except NoAnswer as error:
                self._known[key] = error
        return self._known[key]


def _planned_tokens_per_s(job: Training | Serving, pool: Pool) -> float:
    if isinstance(job, Serving):
        return float(search_static(job, serving_machine(pool), top=1).estimate.output_tokens_per_s[0])
    best = search_training(job, machine_of(pool), top=1, bounded=True, number_format=["bf16"], overlap_data=[True],
                           overlap_tensor=[False])
    return float(best.estimate.tokens / best.estimate.time_s[0])
