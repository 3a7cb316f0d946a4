"""Every combination of a serving waterfall: tables for the machines, then one expression over coalitions and draws.

Axes: D = row of the tables, C = coalition, X = draw.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serried.insight.game import End, distinct_machines, standing_layouts
from serried.planner.spec import FORMATS
from serried.serving import Deployments, PhaseTimes, StaticTables, static_tables
from serried.serving.memory import largest_batch
from serried.serving.static import closed_loop
from serried.workload.spec import Floats, Serving

__all__ = ["UNIT_TOKENS", "ServingGame"]

#: Tokens of the unit of work: seconds are chip-seconds for this many output tokens.
UNIT_TOKENS = 1000.0


class ServingGame:
    """Simulates coalitions between two ends of a serving job; tables are made once."""

    def __init__(self, job: Serving, ends: tuple[End[Deployments], End[Deployments]]) -> None:
        self.job, self.ends = job, ends
        self.layouts = standing_layouts(ends, self._stands)
        parts = []
        machines, self.machine_of = distinct_machines(ends)
        for silicon, machine in machines:
            rows = _joined([self._row(silicon, layout, precision) for precision in (0, 1) for layout in (0, 1)])
            parts.append((rows, static_tables(job, machine, rows)))
        self.rows = _joined([rows for rows, _ in parts])
        self.tables = _joined_tables([tables for _, tables in parts])

    def __call__(self, on_C7: NDArray[np.bool_], stack: Mapping[str, Floats]) -> Floats:
        """Chip-seconds for UNIT_TOKENS output tokens, (X, C)."""
        silicon, kernels, precision, layout, collectives, _, host = on_C7.astype(int).T
        row = 4 * self.machine_of[silicon, kernels, collectives] + 2 * precision + layout
        captured = np.where(host == 1, self.ends[1].layout.captured[0], self.ends[0].layout.captured[0])
        rows = replace(self.rows.take(row), captured=captured)
        loop = closed_loop(self.job, rows, self.tables.take(row), stack)
        return np.asarray(UNIT_TOKENS * rows.chip_count / loop.output_tokens_per_s)

    def _row(self, silicon: int, layout: int, precision: int) -> Deployments:
        return replace(self.layouts[silicon][layout],
                       weight_format=np.array([FORMATS.index(self.ends[precision].number_format)]))

    def _stands(self, silicon: int, layout: Deployments) -> Deployments | None:
        machine = self.ends[silicon].machine
        copies, rest = np.divmod(machine.chip_count, layout.chips_per_replica)
        if rest.any() or (copies < 1).any():
            return None
        moved = replace(layout, replicas=copies)
        return moved if (largest_batch(self.job, machine, moved) >= 1.0).all() else None


def _joined(parts: list[Deployments]) -> Deployments:
    return Deployments(**{column.name: np.concatenate([getattr(part, column.name) for part in parts])
                          for column in fields(Deployments)})


def _joined_tables(parts: list[StaticTables]) -> StaticTables:
    columns: dict[str, Any] = {}
    for column in fields(StaticTables):
        values = [getattr(part, column.name) for part in parts]
        columns[column.name] = _joined_phases(values) if isinstance(values[0], PhaseTimes) else np.concatenate(values)
    return StaticTables(**columns)


def _joined_phases(parts: list[PhaseTimes]) -> PhaseTimes:
    return PhaseTimes(**{column.name: np.concatenate([getattr(part, column.name) for part in parts])
                         for column in fields(PhaseTimes)})
