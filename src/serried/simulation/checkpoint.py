"""How often to save, and what saving, failing and starting again leave of the time.

All functions take arrays or numbers, times in seconds. M = mean time between failures of the gang, w = writing one
checkpoint, tau = work between two.
"""

from __future__ import annotations

import numpy as np

from serried.workload import Floats

__all__ = ["daly_interval_s", "effective_time_ratio", "young_interval_s"]


def young_interval_s(write_s: Floats | float, mtbf_s: Floats | float) -> Floats:
    """sqrt(2 w M): the optimum where writing is short beside M (Young, CACM 1974)."""
    return np.asarray(np.sqrt(2.0 * np.asarray(write_s) * np.asarray(mtbf_s)))


def daly_interval_s(write_s: Floats | float, mtbf_s: Floats | float) -> Floats:
    """The optimum to higher order: sqrt(2 w M) (1 + sqrt(w/2M)/3 + (w/2M)/9) - w for w < 2 M, else M.

    Daly, "A higher order estimate of the optimum checkpoint interval", FGCS 22 (2006), equation 37.
    """
    write_s, mtbf_s = np.asarray(write_s, dtype=np.float64), np.asarray(mtbf_s, dtype=np.float64)
    ratio = write_s / (2.0 * mtbf_s)
    short_s = young_interval_s(write_s, mtbf_s) * (1.0 + np.sqrt(ratio) / 3.0 + ratio / 9.0) - write_s
    return np.asarray(np.where(ratio < 1.0, short_s, mtbf_s))


def effective_time_ratio(node_count: Floats | float, node_failures_per_s: Floats | float, *,
                         restart_s: Floats | float, interval_s: Floats | float, write_s: Floats | float) -> Floats:
    """(1 - N r (u + tau/2)) / (1 + w/tau), first order: each failure costs a restart and half an interval.

    The expected effective training time ratio of "Revisiting Reliability" (HPCA 2025). Not below 0.
    """
    lost = np.asarray(node_count) * np.asarray(node_failures_per_s) * (
        np.asarray(restart_s) + np.asarray(interval_s) / 2.0)
    return np.asarray(np.maximum(1.0 - lost, 0.0) / (1.0 + np.asarray(write_s) / np.asarray(interval_s)))
