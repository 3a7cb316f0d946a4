"""Energy from idle and dynamic power."""

from __future__ import annotations

import numpy as np

from serried.economics.spec import DEFAULT_TARIFF, Tariff
from serried.silicon import Chip
from serried.workload.spec import Floats

__all__ = ["energy_j", "power_w"]


def power_w(busy_fraction: Floats | float, *, chip: Chip, tariff: Tariff = DEFAULT_TARIFF) -> Floats:
    """Mean power of one chip that is busy for `busy_fraction` of the time, W; NaN when its board power is unknown.

    Idle power plus the dynamic part in proportion to busy time. A chip that does not publish its idle power is taken
    to idle at `tariff.idle_power_ratio` of its board power.
    """
    busy = np.clip(np.asarray(busy_fraction, dtype=np.float64), 0.0, 1.0)
    board_w = chip.get("board_power")
    if board_w is None:
        return np.full(busy.shape, np.nan)
    idle_w = chip.get("idle_power")
    idle_w = tariff.idle_power_ratio * board_w if idle_w is None else idle_w
    return np.asarray(idle_w + (board_w - idle_w) * busy)


def energy_j(time_s: Floats | float, busy_fraction: Floats | float, *, chip: Chip, chip_count: float = 1.0,
             tariff: Tariff = DEFAULT_TARIFF) -> Floats:
    """Joules at the meter for `chip_count` chips over `time_s`, busy for `busy_fraction` of it; NaN when unknown."""
    elapsed_s = np.asarray(time_s, dtype=np.float64)
    return np.asarray(elapsed_s * chip_count * power_w(busy_fraction, chip=chip, tariff=tariff) * tariff.pue)
