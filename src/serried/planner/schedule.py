"""How long a pipeline runs, from the times of its stages.

Axes: K = STAGES, L = layout.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from serried.planner.spec import SCHEDULES, Ints
from serried.workload.spec import Floats

__all__ = ["fill_s_L", "slowest_stage_L"]

_ZERO_BUBBLE = SCHEDULES.index("zero-bubble")


def slowest_stage_L(forward_s_KL: Floats, backward_s_KL: Floats) -> NDArray[np.intp]:
    """Code of the stage kind that holds the others up: in the steady state every other stage waits for it."""
    return np.asarray(np.argmax(forward_s_KL + backward_s_KL, axis=0))


def fill_s_L(all_stages_s_L: Floats, slowest_s_L: Floats, all_weight_s_L: Floats, slowest_weight_s_L: Floats, *,
             schedule: Ints, virtual_stages: Floats) -> Floats:
    """Idle seconds of the slowest stage while the pipeline fills and drains.

    all_stages_s_L: one micro-batch forward and backward through all stages; slowest_s_L: its part on the slowest one;
    *_weight_s_L: the weight gradients in these.
    1F1B: the first micro-batch runs through every stage and the last one back, while the slowest stage works m times:
    the idle time is what the other stages take, sum - slowest = (p - 1)(f + b) when they are equal. Interleaving v
    chunks divides it by v (Narayanan et al. 2021). The zero-bubble schedule of the same memory fills it with weight
    gradients: (p - 1)(f + b_data - b_weight) (Qi et al. 2023, ZB-H1).
    """
    others_s = all_stages_s_L - slowest_s_L
    postponed_s = 2.0 * (all_weight_s_L - slowest_weight_s_L)
    idle_s = np.where(schedule == _ZERO_BUBBLE, np.maximum(others_s - postponed_s, 0.0), others_s)
    return np.asarray(np.maximum(idle_s, 0.0) / virtual_stages)
