"""What a job is worth on each kind of chip: throughput and price predicted by the planner, as alternatives of a shape.

The scheduler only sees the numbers; here they are made, once per job form, from the same models that `plan` uses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from serried.economics import DEFAULT_TARIFF, Tariff, chip_usd_per_s
from serried.errors import NoAnswer
from serried.fabric import Pool
from serried.fleet.spec import Alternative
from serried.planner import machine_of, search_training
from serried.serving import search_static, serving_machine
from serried.workload import Serving, Training

__all__ = ["alternatives_of"]


def alternatives_of(job: Training | Serving, ways: Sequence[tuple[int, Pool]], *,
                    tariff: Tariff = DEFAULT_TARIFF) -> tuple[Alternative, ...]:
    """One alternative for every (kind, pool) on which the job runs at all, with its best layout's tokens per second.

    A pool's chip count is the size of the gang on that chip; a worker is a node of its fabric, or all of a smaller
    gang. Prices are compared only when all are known: else throughput alone decides. Raises NoAnswer when the job runs
    on none of the pools, saying why of each.
    """
    found, refused = [], []
    for kind, pool in ways:
        try:
            tokens_per_s = _tokens_per_s(job, pool)
        except NoAnswer as error:
            refused.append(str(error))
            continue
        chips_per_worker = min(max(pool.fabric.node_size, 1), pool.chip_count)
        found.append(Alternative(
            kinds=(kind,), worker_count=pool.chip_count // chips_per_worker, chips_per_worker=chips_per_worker,
            throughput_per_s=tokens_per_s,
            price_usd_per_s=float(chip_usd_per_s(1.0, chip=pool.chip, tariff=tariff)) * pool.chip_count))
    if not found:
        raise NoAnswer("The job runs on none of these chips.", binding=" ".join(refused),
                       remedy="Ask for more chips, or name other kinds.")
    if not all(np.isfinite(one.price_usd_per_s) for one in found):
        found = [replace(one, price_usd_per_s=0.0) for one in found]
    return tuple(found)


def _tokens_per_s(job: Training | Serving, pool: Pool) -> float:
    """Of the best layout: trained tokens, or tokens put out."""
    if isinstance(job, Serving):
        return float(search_static(job, serving_machine(pool), top=1).estimate.output_tokens_per_s[0])
    best = search_training(job, machine_of(pool), top=1, bounded=True, number_format=["bf16"], overlap_data=[True],
                           overlap_tensor=[False])
    return float(best.estimate.tokens / best.estimate.time_s[0])
